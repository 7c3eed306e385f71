"""Sends reservations, settlements and renewals to Redis, in one script call at a time.

A call takes along all that waits for it. When no call is under way, a reservation is sent at once or, if the
last call served several, at the end of the event-loop tick that asks for it. A settlement waits a few
milliseconds for the next reservation, so that requests one after the other need one call each. When the
gateway is busy, one call serves many requests.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gateway.store.commands import JournalPart, ReserveCommand, ReserveReply, exchange_call, renew_call
from gateway.store.connection import ConnectionBroken, RedisConnection, StoreUnavailable
from gateway.store.journal import Journal

log = logging.getLogger("thinkmeter.redis")

_BATCH = 128  # commands per script call
_TOGETHER = 0.005  # seconds in which settlements wait for a reservation that takes them along
_PAUSE = 0.1  # seconds until a failed part of the journal is sent again
_CHECK_SECONDS = 1.0  # without new entries, the time between checks that Redis has kept the delivered ones

Reserved = tuple[str, ReserveReply]
"""A reservation's id and the decision."""


class _TooLate(StoreUnavailable):
    """The deadline of a call had passed by the server's clock, although its reply arrived in time."""


class _Asked:
    """A command that waits for its reply."""

    __slots__ = ("command", "future", "id", "tried")

    def __init__(self, command: ReserveCommand, future: asyncio.Future[Reserved]) -> None:
        self.command, self.future = command, future
        self.id = ""
        self.tried = False


class Batcher:
    """The calls of one gateway process that change windows."""

    def __init__(
        self, connection: RedisConnection, journal: Journal, *, caps: str, lease_ms: int, gateway_id: str
    ) -> None:
        """caps: key of the caps set by an admin. gateway_id: begins the ids of reservations."""
        self._connection, self._journal = connection, journal
        self._caps, self._lease_ms, self._gateway_id = caps, lease_ms, gateway_id
        self._ids = itertools.count(1)
        self._asked: deque[_Asked] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._woken = self._calling = self._renewed = self._checking = False
        self._lone = True
        """The last call served at most one reservation."""
        self._journal_at = 0.0
        """When the journal was sent, or before when it may not be sent again after a failure."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal.on_write, self._journal.hurry = self._wake_soon, self._hurry
        self._ticker = asyncio.create_task(self._tick(), name="budget-journal")

    async def stop(self) -> None:
        """Fail what still waits. A call under way fails with its connection."""
        self._loop = None
        if self._soon:
            self._soon.cancel()
        if self._ticker:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        while self._asked:
            _fail(self._asked.popleft(), StoreUnavailable("the gateway stops"))

    async def reserve(
        self, command: ReserveCommand, meanwhile: Callable[[], None] = lambda: None
    ) -> Reserved:
        """Reserve tokens. If cancelled, give them back. Raises: StoreUnavailable.

        meanwhile: called once, while Redis is at work. If it fails, the tokens are given back.
        """
        if not self._connection.up:
            meanwhile()
            raise StoreUnavailable(f"Redis {self._connection.trouble}")
        future: asyncio.Future[Reserved] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(command, future))
        if self._lone and not (self._woken or self._calling):
            self._send()
        else:
            self._wake()
        try:
            meanwhile()
        except BaseException:
            future.cancel()
            raise
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                id_, reply = future.result()
                if reply.candidate:
                    self._cancel(id_, command)
            raise

    async def _tick(self) -> None:
        """Redeliver what has failed, and check now and then that Redis has kept what was delivered."""
        while True:
            await asyncio.sleep(_PAUSE)
            if time.monotonic() - self._journal_at >= _CHECK_SECONDS and self._journal.remembers:
                self._checking = True
            self._wake()

    def _wake(self) -> None:
        """Send what waits at the end of this tick of the event loop, or after the call under way."""
        if not self._woken and not self._calling and self._loop:
            self._woken = True
            self._loop.call_soon(self._send)

    def _wake_soon(self) -> None:
        """Send the journal with the next reservation, or in a few milliseconds without one."""
        if len(self._journal) >= _BATCH:
            self._wake()
        elif self._soon is None and self._loop:
            self._soon = self._loop.call_later(_TOGETHER, self._waited)

    def _waited(self) -> None:
        self._soon = None
        self._wake()

    def _hurry(self) -> None:
        """Send the journal now, before anything else is asked of Redis, unless a call is under way."""
        if self._journal and not self._calling and self._loop:
            self._send()

    def _send(self) -> None:
        self._woken = False
        if self._calling:
            return  # its reply wakes what waits
        asked: list[_Asked] = []
        try:
            part = self._next_part()
            renewing = part is not None and bool(part.entries) and part.entries[0].script == "renew"
            if renewing and self._renewed and self._asked:
                part, renewing = None, False  # reservations wait for at most one batch of renewals
            self._renewed = renewing
            asked = [] if renewing else self._next_asked()
            self._lone = len(asked) <= 1
            if asked or part:
                self._call(part, asked, renewing=renewing)
        except Exception:  # an unforeseen error must not stop what serves everybody
            log.exception("calling Redis failed")
            self._journal_at = time.monotonic() + _PAUSE
            self._replied(None, asked, StoreUnavailable("an internal error"))

    def _next_part(self) -> JournalPart | None:
        if not self._connection.up or not (self._journal or self._checking):
            return None
        if self._journal_at > (now := time.monotonic()):
            return None
        self._journal_at, self._checking = now, False
        return self._journal.part()

    def _next_asked(self) -> list[_Asked]:
        asked: list[_Asked] = []
        while self._asked and len(asked) < _BATCH:
            if not (one := self._asked.popleft()).future.done():
                one.id = f"{self._gateway_id}-{next(self._ids)}"
                asked.append(one)
        if asked and not self._connection.up:
            for one in asked:
                _fail(one, StoreUnavailable(f"Redis {self._connection.trouble}"))
            return []
        return asked

    def _call(self, part: JournalPart | None, asked: list[_Asked], *, renewing: bool) -> None:
        done = partial(self._replied, part, asked)
        if renewing and part:
            keys, arguments = renew_call(part, lease_ms=self._lease_ms)
            operations = ["renew"]
        else:
            commands = [(one.id, one.command) for one in asked]
            deadline = self._connection.deadline() if asked else 0
            keys, arguments = exchange_call(
                part, commands, caps=self._caps, lease_ms=self._lease_ms, deadline=deadline
            )
            operations = (["settle"] if part else []) + (["reserve"] if asked else [])
        self._calling = True
        self._connection.begin("renew" if renewing else "exchange", keys, arguments, operations, done)

    def _replied(
        self, part: JournalPart | None, asked: list[_Asked], result: list[Any] | StoreUnavailable
    ) -> None:
        self._calling = False
        if isinstance(result, StoreUnavailable):
            if part:
                self._journal_at = time.monotonic() + _PAUSE
            self._failed(asked, result)
        else:
            _, applied, known, *rows = result
            if part:
                self._journal.replied(part, applied, known)
            if len(rows) < len(asked):
                self._failed(asked, _TooLate("the deadline had passed when Redis came to the call"))
            else:
                self._succeeded(asked, rows)
        if self._asked:
            self._wake()
        elif self._journal:
            self._wake_soon()

    def _succeeded(self, asked: list[_Asked], rows: Sequence[Sequence[Any]]) -> None:
        for one, row in zip(asked, rows, strict=True):
            reply = ReserveReply._make(row)
            if not one.future.done():
                one.future.set_result((one.id, reply))
            elif reply.candidate:  # cancelled before the reply
                self._cancel(one.id, one.command)

    def _failed(self, asked: list[_Asked], error: StoreUnavailable) -> None:
        again = isinstance(error, ConnectionBroken | _TooLate)  # Redis restarted, or its clock was set ahead
        for one in reversed(asked):
            self._cancel(one.id, one.command)  # Redis may have reserved nevertheless
            if again and not one.tried and self._loop:
                one.tried = True
                self._asked.appendleft(one)
            else:
                _fail(one, StoreUnavailable(*error.args))

    def _cancel(self, id_: str, command: ReserveCommand) -> None:
        self._journal.settle(id_, command.windows, [(0, 0)] * len(command.windows))


def _fail(asked: _Asked, error: StoreUnavailable) -> None:
    if not asked.future.done():
        asked.future.set_exception(error)
