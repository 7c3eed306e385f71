"""The state of the budgets in Redis: one Lua script per operation.

Reservations, settlements and renewals go through the `Batcher`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress

from gateway.store.batching import Batcher, Reserved
from gateway.store.commands import ReserveCommand, Window, WindowState, status_call, window_call
from gateway.store.connection import RedisConnection, StoreUnavailable
from gateway.store.journal import Journal

log = logging.getLogger("thinkmeter.redis")

_BATCH = 128  # windows per script call
_SLICE = 32  # windows per script call while many are read: requests wait in Redis for at most one slice


class Store:
    """The budgets in Redis, as one gateway process uses them."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        prefix: str,
        lease: float,
        gateway_id: str,
        reader: RedisConnection | None = None,
    ) -> None:
        """lease: seconds. gateway_id: unique name of this process, in ids of reservations and its journal.

        reader: the connection for `slices`; default that of the requests.
        """
        self.connection = connection
        self._reader = reader
        self._reading = asyncio.Lock()
        self.journal = Journal(connection, prefix=prefix, gateway_id=gateway_id)
        self.gateway_id = gateway_id
        self._caps = f"{{{prefix}}}:caps"
        self._lease_ms = round(lease * 1000)
        self._batcher = Batcher(
            connection, self.journal, caps=self._caps, lease_ms=self._lease_ms, gateway_id=gateway_id
        )
        self._started = False

    @property
    def up(self) -> bool:
        """Whether Redis answers, as far as this process knows."""
        return self.connection.up

    async def start(self) -> None:
        """Connect. If Redis is away, keep trying in the background."""
        await self.connection.start()
        if self._reader:
            await self._reader.start()
        self._batcher.start()
        self._started = True

    async def stop(self, seconds: float = 2) -> None:
        """Deliver the rest of the journal within so many seconds, and disconnect."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self._started else 0):
                await self.journal.empty()
        if self.journal:
            log.error("%d settlements were not delivered", len(self.journal))
        await self._batcher.stop()
        await self.connection.stop()
        if self._reader:
            await self._reader.stop()

    def reserve(
        self, command: ReserveCommand, meanwhile: Callable[[], None] = lambda: None
    ) -> Coroutine[None, None, Reserved]:
        """Reserve tokens. A refusal is not an error, but a reply. If cancelled, give the tokens back.

        meanwhile: called once, while Redis is at work.

        Raises: StoreUnavailable.
        """
        return self._batcher.reserve(command, meanwhile)

    # --- reading and administration --------------------------------------------------------------------

    async def status(self, windows: Sequence[Window]) -> tuple[float, list[WindowState]]:
        """The server's time in seconds, and the state of each window. Raises: StoreUnavailable."""
        self.journal.hurry()
        states: list[WindowState] = []
        now = 0
        for start in range(0, len(windows), _BATCH):
            call = status_call(windows[start : start + _BATCH], caps=self._caps)
            now, *replies = await self.connection.call("status", *call)
            states += [WindowState(*reply) for reply in replies]
        return now / 1000, states

    async def slices(self, windows: Sequence[Window]) -> AsyncIterator[list[WindowState]]:
        """The state of any number of windows, some at a time, without delaying requests.

        Raises: StoreUnavailable.
        """
        self.journal.hurry()
        reader = self._reader or self.connection
        for start in range(0, len(windows), _SLICE):
            call = status_call(windows[start : start + _SLICE], caps=self._caps)
            try:
                async with self._reading:  # all who read share one connection
                    _, *replies = await reader.call("status", *call)
            except StoreUnavailable:
                with suppress(StoreUnavailable):  # requests should know if Redis is away, and not only slow
                    await self.connection.command("PING")
                raise
            yield [WindowState(*reply) for reply in replies]

    async def pace(self, changes: Sequence[tuple[Window, str | bytes, str | bytes]]) -> None:
        """Replace the price controller's memory in each (window, old, new), if it still is the old one.

        Raises: StoreUnavailable.
        """
        if changes:
            texts = [text for _, old, new in changes for text in (old, new)]
            await self.connection.call("pace", [window.key for window, _, _ in changes], texts)

    async def set_cap(self, window: Window, tokens: int | None) -> None:
        """Override the configured cap for all gateways; None removes the override.

        Raises: StoreUnavailable.
        """
        change = ("HDEL", window.key) if tokens is None else ("HSET", window.key, tokens)
        await self.connection.command(change[0], self._caps, *change[1:])

    async def top_up(self, window: Window, tokens: int) -> None:
        """Raise the cap by `tokens` for the length of one window. Raises: StoreUnavailable."""
        await self._call_window("top_up", window, tokens)

    async def reset(self, window: Window) -> None:
        """Forget the settled tokens and the top-up; reservations stay. Raises: StoreUnavailable."""
        await self._call_window("reset", window)

    async def _call_window(self, script: str, window: Window, *arguments: int) -> None:
        self.journal.hurry()
        call = window_call(window, *arguments, caps=self._caps, lease_ms=self._lease_ms)
        await self.connection.call(script, *call)
