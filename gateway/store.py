"""The budget's state in Redis: one script a phase, one round trip for all that a tick of the event loop asks.

Reservations are asked in batches; settlements and renewals go through the journal.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from gateway.journal import Journal
from gateway.redis_link import ConnectionBroken, Link, StoreUnavailable
from gateway.window import Table, Window

log = logging.getLogger("thinkmeter.redis")

_BATCH = 128


class Ask(NamedTuple):
    """A reservation wanted: amounts by candidate (dearest first) and window.

    wanted: position of the candidate to try first, from 1. Where none fits, the last is cut to a clamp of at
    least `minimum` completion tokens a choice, or, when `soft`, what an empty window has room for.
    fixed: tokens of each window that no clamp changes (the prompt's). arrivals: 0 when it is asked again.
    """

    windows: tuple[Window, ...]
    fixed: tuple[int, ...]
    amounts: tuple[tuple[int, ...], ...]
    wanted: int = 1
    choices: int = 1
    minimum: int = 1
    soft: bool = True
    arrivals: int = 1


class Grant(NamedTuple):
    """What was decided, and the numbers it was decided from; times in milliseconds.

    candidate: from 1; 0 means refused. clamp: completion tokens a choice, 0 where the candidate is whole.
    tightest, room, reset, cap: of the window with the least room left. blocker: the window that stood in the
    way of the wanted candidate, from 1, 0 for none. wait: until the least may fit, -1 for never.
    fits: candidates that had room, as bits.
    """

    candidate: int
    clamp: int
    tightest: int
    room: int
    reset: int
    cap: int
    blocker: int
    wait: int
    blocker_settled: int
    blocker_reserved: int
    blocker_cap: int
    fits: int


class Use(NamedTuple):
    """The state of a window; `stale` is held by reservations whose lease ran out. Times in milliseconds."""

    cap: int
    settled: int
    reserved: int
    stale: int
    entries: int
    reset: int
    arrivals: int
    limited: int
    spent: int
    expected: int
    memory: bytes


class Store:
    """What one process asks of the budgets. `replica` names it in ids and in its journal."""

    def __init__(self, link: Link, *, prefix: str, lease: float, replica: str) -> None:
        """`lease` in seconds."""
        self.link = link
        self.prefix = f"{{{prefix}}}"
        self._lease = round(lease * 1000)
        self._replica = replica
        self._ids = itertools.count(1)
        self._asks: list[tuple[Ask, asyncio.Future[tuple[str, Grant]]]] = []
        self._asked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.journal = Journal(link, prefix=prefix, lease=lease, replica=replica)

    async def start(self) -> None:
        """Connect; a Redis that is away is tried until it comes."""
        await self.link.start()
        self._tasks = [
            asyncio.create_task(self._serve_asks(), name="budget-reserve"),
            asyncio.create_task(self.journal.deliver(), name="budget-journal"),
        ]

    async def stop(self, seconds: float = 2) -> None:
        """Deliver what is left of the journal, within `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self._tasks else 0):
                await self.journal.empty()
        if self.journal:
            log.error("%d settlements were not delivered", len(self.journal))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.stop()

    # --- reservations ------------------------------------------------------------------------------

    async def reserve(self, ask: Ask) -> tuple[str, Grant]:
        """Decide and reserve; the id names the reservation if one was granted. Raises StoreUnavailable."""
        if not self.link.up:
            raise StoreUnavailable("Redis is away")
        future: asyncio.Future[tuple[str, Grant]] = asyncio.get_running_loop().create_future()
        self._asks.append((ask, future))
        self._asked.set()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                self._release(*future.result(), ask)
            raise

    async def _serve_asks(self) -> None:
        while True:
            await self._asked.wait()
            batch, self._asks = self._asks[:_BATCH], self._asks[_BATCH:]
            if not self._asks:
                self._asked.clear()
            try:
                await self._reserve(batch)
            except Exception:  # whatever it is, the next ones must not wait for ever
                log.exception("reservations failed")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(StoreUnavailable("an internal error"))

    async def _reserve(self, batch: list[tuple[Ask, asyncio.Future[tuple[str, Grant]]]]) -> None:
        waiting = [(ask, future) for ask, future in batch if not future.done()]
        asks = [ask for ask, _ in waiting]
        if not asks:
            return
        try:
            try:
                granted = await self._granted(asks)
            except ConnectionBroken:
                granted = await self._granted(asks)
        except StoreUnavailable as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(StoreUnavailable(*error.args))
            return
        for (ask, future), (id_, grant) in zip(waiting, granted, strict=True):
            if future.done():
                self._release(id_, grant, ask)
            else:
                future.set_result((id_, grant))

    async def _granted(self, asks: list[Ask]) -> list[tuple[str, Grant]]:
        ids = [f"{self._replica}-{next(self._ids)}" for _ in asks]
        try:
            if not self.link.up:
                raise StoreUnavailable("Redis is away")
            _, *replies = await self.link.call("reserve", *self._reserve_command(asks, ids))
            if len(replies) < len(asks):
                raise StoreUnavailable("Redis answered too late")
        except StoreUnavailable:
            for ask, id_ in zip(asks, ids, strict=True):  # it may have been executed all the same
                self.journal.settle(id_, ask.windows, [(0, 0)] * len(ask.windows))
            raise
        return [(id_, Grant(*reply)) for id_, reply in zip(ids, replies, strict=True)]

    def _release(self, id_: str, grant: Grant, ask: Ask) -> None:
        """Nobody waits for this one any more."""
        if grant.candidate:
            self.journal.settle(id_, ask.windows, [(0, 0)] * len(ask.windows))

    def _reserve_command(self, asks: list[Ask], ids: list[str]) -> tuple[list[str], list[Any]]:
        table = Table(f"{self.prefix}:caps")
        body: list[Any] = [len(asks)]
        for ask, id_ in zip(asks, ids, strict=True):
            body += (id_, ask.choices, ask.minimum, int(ask.soft), ask.arrivals, ask.wanted)
            body += (len(ask.amounts), len(ask.windows))
            for window, fixed in zip(ask.windows, ask.fixed, strict=True):
                body += (table.index(window), fixed)
            for amounts in ask.amounts:
                body += amounts
        return table.keys, [self._lease, self.link.deadline(), *table.lengths(), *table.caps, *body]

    # --- looking and setting -----------------------------------------------------------------------

    async def status(self, windows: Sequence[Window]) -> tuple[float, list[Use]]:
        """The server's time in seconds, and the state of each window. Raises StoreUnavailable."""
        uses: list[Use] = []
        now = 0
        for start in range(0, len(windows), _BATCH):
            table = Table(f"{self.prefix}:caps", windows[start : start + _BATCH])
            now, *replies = await self.link.call("status", table.keys, [*table.lengths(), *table.caps])
            uses += [Use(*reply) for reply in replies]
        return now / 1000, uses

    async def pace(self, changes: Sequence[tuple[Window, str | bytes, str | bytes]]) -> None:
        """Replace the pacing's memory where it still is what was read. Raises StoreUnavailable."""
        if changes:
            texts = [text for _, old, new in changes for text in (old, new)]
            await self.link.call("pace", [window.key for window, _, _ in changes], texts)

    async def set_cap(self, window: Window, tokens: int | None) -> None:
        """Another cap than the configured one, for all gateways, until it is taken back with None."""
        change = ("HDEL", window.key) if tokens is None else ("HSET", window.key, tokens)
        await self.link.command(change[0], f"{self.prefix}:caps", *change[1:])

    async def top_up(self, window: Window, tokens: int) -> None:
        """More tokens for the length of one window."""
        table = Table(f"{self.prefix}:caps", [window])
        await self.link.call("top_up", table.keys, [self._lease, *table.lengths(), tokens])

    async def reset(self, window: Window) -> None:
        """Forget what was spent; what is reserved stays."""
        table = Table(f"{self.prefix}:caps", [window])
        await self.link.call("reset", table.keys, [self._lease, *table.lengths()])
