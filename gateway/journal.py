"""Settlements and renewals on their way to Redis: written at once and in memory, delivered in order, again
and again until Redis has taken them. A sequence number makes that exact, however often a batch is sent."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.redis_link import Link, StoreUnavailable
from gateway.window import Table, Window

log = logging.getLogger("thinkmeter.redis")

_BATCH = 128
_KEPT = 50_000  # entries that wait while Redis is away
_PAUSE = 0.1  # seconds until a batch is sent again


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
        if len(self._entries) >= _KEPT:
            self._removed(self._entries.popleft())
            self.lost += 1
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
            await self._written.wait()
            batch = self._next()
            try:
                await self._link.call(batch[0].phase, *self._command(batch))
            except StoreUnavailable:
                await asyncio.sleep(_PAUSE)
                continue
            while self._entries and self._entries[0].sequence <= batch[-1].sequence:
                self._removed(self._entries.popleft())
            if not self._entries:
                self._written.clear()
                self._emptied.set()

    def _next(self) -> list[Entry]:
        """The oldest entries, as many as one script call takes."""
        phase = self._entries[0].phase
        oldest = itertools.islice(self._entries, _BATCH)
        return list(itertools.takewhile(lambda entry: entry.phase == phase, oldest))

    def _command(self, entries: list[Entry]) -> tuple[list[str], list[Any]]:
        table = Table(self._key)
        body: list[Any] = [len(entries)]
        for entry in entries:
            body += (entry.sequence, entry.id, len(entry.windows))
            for window, numbers in zip(entry.windows, entry.numbers, strict=True):
                body += (table.index(window), *numbers)
        return table.keys, [self._lease, *table.lengths(), *body]
