"""The state of the budgets in Redis: one Lua script per operation.

All reservations made in one tick of the event loop share a round trip. Settlements and renewals go through
the journal.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from gateway.store.commands import (
    ReserveCommand,
    ReserveReply,
    Window,
    WindowState,
    reserve_call,
    status_call,
    window_call,
)
from gateway.store.connection import ConnectionBroken, RedisConnection, StoreUnavailable
from gateway.store.journal import Journal

log = logging.getLogger("thinkmeter.redis")

_BATCH = 128  # commands, or windows, per script call
_SLICE = 32  # windows per script call while many are read: requests wait in Redis for at most one slice

Reserved = tuple[str, ReserveReply]
"""A reservation's id and the decision."""


class _TooLate(StoreUnavailable):
    """The deadline of a call had passed by the server's clock, although its reply arrived in time."""


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
        self.journal = Journal(connection, prefix=prefix, lease=lease, gateway_id=gateway_id)
        self.gateway_id = gateway_id
        self._caps = f"{{{prefix}}}:caps"
        self._lease_ms = round(lease * 1000)
        self._ids = itertools.count(1)
        self._commands: list[tuple[ReserveCommand, asyncio.Future[Reserved]]] = []
        self._commanded = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def up(self) -> bool:
        """Whether Redis answers, as far as this process knows."""
        return self.connection.up

    async def start(self) -> None:
        """Connect. If Redis is away, keep trying in the background."""
        await self.connection.start()
        if self._reader:
            await self._reader.start()
        self._tasks = [
            asyncio.create_task(self._serve_commands(), name="budget-reserve"),
            asyncio.create_task(self.journal.deliver(), name="budget-journal"),
        ]

    async def stop(self, seconds: float = 2) -> None:
        """Deliver the rest of the journal within so many seconds, and disconnect."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self._tasks else 0):
                await self.journal.empty()
        if self.journal:
            log.error("%d settlements were not delivered", len(self.journal))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.connection.stop()
        if self._reader:
            await self._reader.stop()

    # --- reserving -------------------------------------------------------------------------------------

    async def reserve(self, command: ReserveCommand) -> Reserved:
        """Reserve tokens. A refusal is not an error, but a reply. If cancelled, give the tokens back.

        Raises: StoreUnavailable.
        """
        if not self.up:
            raise StoreUnavailable(f"Redis {self.connection.trouble}")
        future: asyncio.Future[Reserved] = asyncio.get_running_loop().create_future()
        self._commands.append((command, future))
        self._commanded.set()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                self._give_back(*future.result(), command)
            raise

    async def _serve_commands(self) -> None:
        while True:
            await self._commanded.wait()
            batch, self._commands = self._commands[:_BATCH], self._commands[_BATCH:]
            if not self._commands:
                self._commanded.clear()
            try:
                await self._reserve(batch)
            except Exception:  # an unforeseen error must not stop the loop that serves everybody
                log.exception("reserving tokens failed")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(StoreUnavailable("an internal error"))

    async def _reserve(self, batch: list[tuple[ReserveCommand, asyncio.Future[Reserved]]]) -> None:
        waiting = [(command, future) for command, future in batch if not future.done()]
        commands = [command for command, _ in waiting]
        if not commands:
            return
        try:
            try:
                replies = await self._call(commands)
            except (ConnectionBroken, _TooLate):  # the server restarted, or its clock was set ahead
                replies = await self._call(commands)
        except StoreUnavailable as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(StoreUnavailable(*error.args))
            return
        for (command, future), (id_, reply) in zip(waiting, replies, strict=True):
            if future.done():
                self._give_back(id_, reply, command)
            else:
                future.set_result((id_, reply))

    async def _call(self, commands: list[ReserveCommand]) -> list[Reserved]:
        ids = [f"{self.gateway_id}-{next(self._ids)}" for _ in commands]
        try:
            if not self.up:
                raise StoreUnavailable(f"Redis {self.connection.trouble}")
            deadline = self.connection.deadline()
            call = reserve_call(commands, ids, caps=self._caps, lease_ms=self._lease_ms, deadline=deadline)
            _, *replies = await self.connection.call("reserve", *call)
            if len(replies) < len(commands):
                raise _TooLate("the deadline had passed when Redis came to the call")
        except StoreUnavailable:
            for command, id_ in zip(commands, ids, strict=True):  # Redis may have reserved nevertheless
                self._cancel(id_, command)
            raise
        return [(id_, ReserveReply(*reply)) for id_, reply in zip(ids, replies, strict=True)]

    def _give_back(self, id_: str, reply: ReserveReply, command: ReserveCommand) -> None:
        """Return the tokens of a request that was cancelled before it got the reply."""
        if reply.candidate:
            self._cancel(id_, command)

    def _cancel(self, id_: str, command: ReserveCommand) -> None:
        self.journal.settle(id_, command.windows, [(0, 0)] * len(command.windows))

    # --- reading and administration --------------------------------------------------------------------

    async def status(self, windows: Sequence[Window]) -> tuple[float, list[WindowState]]:
        """The server's time in seconds, and the state of each window. Raises: StoreUnavailable."""
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
        call = window_call(window, *arguments, caps=self._caps, lease_ms=self._lease_ms)
        await self.connection.call(script, *call)
