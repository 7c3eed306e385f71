"""At-least-once delivery of settlements and renewals to Redis; sequence numbers make redelivery idempotent.

Entries wait in memory and are sent in order until Redis confirms them. Confirmed entries are kept for a
minute, because Redis confirms before it replicates or syncs to disk. For example, entries up to 120 were
confirmed, the primary dies, and its successor has only seen 117. Redis stores the number of the last applied
entry next to the windows, so the new primary reports 117 and gets 118 to 120 again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from gateway.store.commands import JournalEntry, JournalPart, Window
from gateway.store.connection import RedisConnection

log = logging.getLogger("thinkmeter.redis")

_BATCH = 128  # entries per script call
_MOST_WAITING = 50_000  # entries kept in memory while Redis is away
_MOST_DELIVERED = 10_000  # delivered entries kept for redelivery
_KEEP_SECONDS = 60.0  # and for how long


class Journal:
    """The journal of one gateway process. `Batcher` delivers it."""

    def __init__(self, connection: RedisConnection, *, prefix: str, gateway_id: str) -> None:
        self._connection = connection
        self._key = f"{{{prefix}}}:journal:{gateway_id}"
        self.on_write: Callable[[], None] = lambda: None
        """Called after every new entry."""
        self.hurry: Callable[[], None] = lambda: None
        """Has the entries sent now that wait for others."""
        self._sequence = itertools.count(1)
        self._waiting: deque[JournalEntry] = deque()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._renewals = 0
        """Renewals among the waiting entries."""
        self._delivered: deque[tuple[float, JournalEntry]] = deque(maxlen=_MOST_DELIVERED)
        self._last_delivered = 0
        """Sequence number of the last entry that Redis has confirmed."""
        self.lost = 0
        """Entries dropped because too many were waiting; their reservations expire."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def waiting(self) -> list[JournalEntry]:
        """The entries that Redis has not confirmed, oldest first."""
        return list(self._waiting)

    def settle(self, id_: str, windows: tuple[Window, ...], numbers: Sequence[tuple[int, int]]) -> None:
        """Replace a reservation by (tokens spent, tokens expected) per window. Never fails."""
        self._write(JournalEntry("settle", id_, windows, numbers))

    def renew(self, entries: Sequence[JournalEntry]) -> None:
        """Extend leases and report progress. Skipped while earlier renewals still wait or Redis is away."""
        if self._connection.up and not self._renewals:
            self._renewals = len(entries)
            for entry in entries:
                self._write(entry)

    def _write(self, entry: JournalEntry) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._removed(self._waiting.popleft())
            self.lost += 1
            if self.lost == 1:
                log.error("more than %d journal entries wait for Redis: dropping the oldest", _MOST_WAITING)
        entry.sequence = next(self._sequence)
        self._waiting.append(entry)
        self._emptied.clear()
        self.on_write()

    def _removed(self, entry: JournalEntry) -> None:
        if entry.script == "renew":
            self._renewals -= 1

    async def empty(self) -> None:
        """Wait until Redis has confirmed every entry."""
        self.hurry()
        await self._emptied.wait()

    def part(self) -> JournalPart:
        """The oldest waiting entries that can share one script call."""
        script = self._waiting[0].script if self._waiting else None
        oldest = itertools.islice(self._waiting, _BATCH)
        entries = list(itertools.takewhile(lambda entry: entry.script == script, oldest))
        return JournalPart(self._key, self._last_delivered, entries)

    def replied(self, part: JournalPart, applied: int, known: int) -> None:
        """Redis has applied a part, or has lost what came after the sequence number `known`."""
        if applied < 0:
            self._redeliver(known)
        elif part.entries:
            self._confirmed(part.entries[-1].sequence)

    @property
    def remembers(self) -> bool:
        """Whether there are delivered entries that Redis may still lose."""
        self._drop_old()
        return bool(self._delivered)

    def _confirmed(self, last: int) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0].sequence <= last:
            entry = self._waiting.popleft()
            self._removed(entry)
            self._delivered.append((now, entry))
        self._last_delivered = last
        self._drop_old()
        if not self._waiting:
            self._emptied.set()

    def _drop_old(self) -> None:
        oldest = time.monotonic() - _KEEP_SECONDS
        while self._delivered and self._delivered[0][0] < oldest:
            self._delivered.popleft()

    def _redeliver(self, known: int) -> None:
        """Redis has lost what came after the sequence number `known`: deliver those entries again."""
        lost = [entry for _, entry in self._delivered if entry.sequence > known]
        log.warning("Redis lost confirmed settlements: redelivering %d journal entries", len(lost))
        while self._delivered and self._delivered[-1][1].sequence > known:
            self._delivered.pop()
        self._waiting.extendleft(reversed(lost))
        self._renewals += sum(entry.script == "renew" for entry in lost)
        self._last_delivered = known
        if lost:
            self._emptied.clear()
