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
from collections.abc import Sequence

from gateway.store.commands import JournalEntry, ScriptCall, Window, journal_call
from gateway.store.connection import RedisConnection, StoreUnavailable

log = logging.getLogger("thinkmeter.redis")

_BATCH = 128  # entries per script call
_MOST_WAITING = 50_000  # entries kept in memory while Redis is away
_PAUSE = 0.1  # seconds until a failed batch is sent again
_MOST_DELIVERED = 10_000  # delivered entries kept for redelivery
_KEEP_SECONDS = 60.0  # and for how long
_CHECK_SECONDS = 1.0  # without new entries, the time between checks that Redis has kept the delivered ones


class Journal:
    """The journal of one gateway process."""

    def __init__(self, connection: RedisConnection, *, prefix: str, lease: float, gateway_id: str) -> None:
        self._connection = connection
        self._key = f"{{{prefix}}}:journal:{gateway_id}"
        self._lease_ms = round(lease * 1000)
        self._sequence = itertools.count(1)
        self._waiting: deque[JournalEntry] = deque()
        self._written = asyncio.Event()
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
        self._written.set()
        self._emptied.clear()

    def _removed(self, entry: JournalEntry) -> None:
        if entry.script == "renew":
            self._renewals -= 1

    async def empty(self) -> None:
        """Wait until Redis has confirmed every entry."""
        await self._emptied.wait()

    async def deliver(self) -> None:
        """Send entries to Redis as they are written, until cancelled."""
        while True:
            await self._wait()
            batch = self._next_batch()
            script = batch[0].script if batch else "settle"  # no entries: asks what Redis has kept
            try:
                _, applied, known = await self._connection.call(script, *self.call(batch))
            except StoreUnavailable:
                await asyncio.sleep(_PAUSE)
                continue
            except Exception:  # an unforeseen error must not stop the loop that settles everything
                log.exception("delivering the journal failed")
                await asyncio.sleep(_PAUSE)
                continue
            if applied < 0:
                self._redeliver(known)
            elif batch:
                self._confirmed(batch[-1].sequence)

    async def _wait(self) -> None:
        """Wait for an entry to deliver, or for the time to check that Redis has kept the delivered ones."""
        while not self._waiting:
            try:
                async with asyncio.timeout(_CHECK_SECONDS if self._delivered else None):
                    await self._written.wait()
            except TimeoutError:
                self._drop_old()
                if self._delivered and self._connection.up:
                    return

    def _confirmed(self, last: int) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0].sequence <= last:
            entry = self._waiting.popleft()
            self._removed(entry)
            self._delivered.append((now, entry))
        self._last_delivered = last
        self._drop_old()
        if not self._waiting:
            self._written.clear()
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
            self._written.set()
            self._emptied.clear()

    def _next_batch(self) -> list[JournalEntry]:
        """The oldest waiting entries that can share one script call."""
        script = self._waiting[0].script if self._waiting else None
        oldest = itertools.islice(self._waiting, _BATCH)
        return list(itertools.takewhile(lambda entry: entry.script == script, oldest))

    def call(self, entries: Sequence[JournalEntry]) -> ScriptCall:
        """KEYS and ARGV that deliver these entries."""
        return journal_call(
            entries, journal=self._key, delivered=self._last_delivered, lease_ms=self._lease_ms
        )
