"""Settlements and renewals on their way to Redis: written at once and in memory, delivered in order, again
and again until Redis has taken them. A sequence number makes that exact, however often a batch is sent.

What was delivered is kept for a while. Redis replicates and syncs to disk behind its replies, so a server
that takes over may lack the last of it; the sequence number is then among what it lacks: it is told again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.redis_link import Link, StoreUnavailable
from gateway.window import Table, Window

log = logging.getLogger("thinkmeter.redis")

_BATCH = 128
_WAITING = 50_000  # entries that wait while Redis is away
_PAUSE = 0.1  # seconds until a batch is sent again
_KEPT = 10_000  # entries kept after their delivery
_KEPT_SECONDS = 60.0
_CHECK = 1.0  # seconds until a Redis that is told nothing is asked whether it still knows all


@dataclass(slots=True, eq=False)
class Entry:
    """numbers: (tokens, tokens expected) of each window to settle, (amount, reported) to renew."""

    phase: Literal["settle", "renew"]
    id: str
    windows: tuple[Window, ...]
    numbers: Sequence[tuple[int, int]]
    sequence: int = 0


class Journal:
    """The journal of one process, which `replica` names."""

    def __init__(self, link: Link, *, prefix: str, lease: float, replica: str) -> None:
        self._link = link
        self._key = f"{{{prefix}}}:journal:{replica}"
        self._lease = round(lease * 1000)
        self._sequence = itertools.count(1)
        self._entries: deque[Entry] = deque()
        self._written = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._renewals = 0
        self._kept: deque[tuple[float, Entry]] = deque(maxlen=_KEPT)
        self._delivered = 0
        self.lost = 0
        """Entries given up because too many waited: their reservations end with their leases."""

    def __len__(self) -> int:
        return len(self._entries)

    def settle(self, id_: str, windows: tuple[Window, ...], numbers: Sequence[tuple[int, int]]) -> None:
        """Replace a reservation by what was spent. Never fails."""
        self._write(Entry("settle", id_, windows, numbers))

    def renew(self, entries: Sequence[Entry]) -> None:
        """Move leases and note progress; left out while the last time is under way, or Redis away."""
        if self._link.up and not self._renewals:
            self._renewals = len(entries)
            for entry in entries:
                self._write(entry)

    def _write(self, entry: Entry) -> None:
        if len(self._entries) >= _WAITING:
            self._removed(self._entries.popleft())
            self.lost += 1
            if self.lost == 1:
                log.error("more than %d settlements wait for Redis: the oldest are given up", _WAITING)
        entry.sequence = next(self._sequence)
        self._entries.append(entry)
        self._written.set()
        self._emptied.clear()

    def _removed(self, entry: Entry) -> None:
        if entry.phase == "renew":
            self._renewals -= 1

    async def empty(self) -> None:
        """Wait until Redis has taken everything."""
        await self._emptied.wait()

    async def deliver(self) -> None:
        """Runs for ever."""
        while True:
            await self._wait()
            batch = self._next()
            phase = batch[0].phase if batch else "settle"
            try:
                _, applied, known = await self._link.call(phase, *self._command(batch))
            except StoreUnavailable:
                await asyncio.sleep(_PAUSE)
                continue
            except Exception:  # whatever it is, what is settled must not wait for ever
                log.exception("settling failed")
                await asyncio.sleep(_PAUSE)
                continue
            if applied < 0:
                self._tell_again(known)
            elif batch:
                self._took(batch[-1].sequence)

    async def _wait(self) -> None:
        """Until there is something to deliver, or time to ask whether what was delivered is still known."""
        while not self._entries:
            try:
                async with asyncio.timeout(_CHECK if self._kept else None):
                    await self._written.wait()
            except TimeoutError:
                self._forget()
                if self._kept and self._link.up:
                    return

    def _took(self, last: int) -> None:
        now = time.monotonic()
        while self._entries and self._entries[0].sequence <= last:
            entry = self._entries.popleft()
            self._removed(entry)
            self._kept.append((now, entry))
        self._delivered = last
        self._forget()
        if not self._entries:
            self._written.clear()
            self._emptied.set()

    def _forget(self) -> None:
        old = time.monotonic() - _KEPT_SECONDS
        while self._kept and self._kept[0][0] < old:
            self._kept.popleft()

    def _tell_again(self, known: int) -> None:
        """Redis has lost what it had acknowledged after the entry `known`."""
        again = [entry for _, entry in self._kept if entry.sequence > known]
        log.warning("Redis has lost what it had acknowledged: %d entries are told again", len(again))
        while self._kept and self._kept[-1][1].sequence > known:
            self._kept.pop()
        self._entries.extendleft(reversed(again))
        self._renewals += sum(entry.phase == "renew" for entry in again)
        self._delivered = known
        if again:
            self._written.set()
            self._emptied.clear()

    def _next(self) -> list[Entry]:
        """The oldest entries, as many as one script call takes."""
        phase = self._entries[0].phase if self._entries else None
        oldest = itertools.islice(self._entries, _BATCH)
        return list(itertools.takewhile(lambda entry: entry.phase == phase, oldest))

    def _command(self, entries: list[Entry]) -> tuple[list[str], list[Any]]:
        table = Table(self._key)
        body: list[Any] = [len(entries)]
        for entry in entries:
            body += (entry.sequence, entry.id, len(entry.windows))
            for window, numbers in zip(entry.windows, entry.numbers, strict=True):
                body += (table.index(window), *numbers)
        return table.keys, [self._delivered, self._lease, *table.lengths(), *body]
