"""What the consoles of the other workers know, asked over the supervisor."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from gateway.console.merging import merge_snapshots
from gateway.http.channel import ChannelError


class Question(Struct):
    """What a worker wants to know."""

    since: int
    """Unix time of the first second to tell."""
    seen: dict[str, int]
    """How many decisions of each worker it knows."""


class Report(Struct):
    """What the console of one worker knows."""

    worker: str
    count: int
    """Decisions so far."""
    decisions: list[dict[str, Any]]
    """Those that were asked for."""
    snapshot: dict[str, Any]


class OtherWorkers:
    """The other workers as they were when they were asked last."""

    def __init__(self, ask: Callable[[bytes], Awaitable[list[bytes]]], kept: int) -> None:
        """ask: returns the `Report` of each other worker. kept: decisions to keep."""
        self._ask = ask
        self._reports: dict[str, Report] = {}
        self._decisions: deque[dict[str, Any]] = deque(maxlen=kept)
        self.count = 0
        """Decisions of the others so far."""

    async def refresh(self, since: int) -> None:
        """Ask all others for the seconds from Unix time `since` on, and for new decisions."""
        seen = {worker: report.count for worker, report in self._reports.items()}
        try:
            answers = await self._ask(msgspec.json.encode(Question(since, seen)))
        except ChannelError:
            return
        reports = {report.worker: report for report in map(_read, answers)}
        for worker, report in self._reports.items():
            if worker not in reports:  # it has ended: what it has done still counts
                report.snapshot["backends"] = []
        fresh = [shown for report in reports.values() for shown in report.decisions]
        self._decisions.extend(sorted(fresh, key=lambda shown: float(shown["at"])))
        self.count += len(fresh)
        self._reports |= reports

    def decisions(self, seen: int) -> list[dict[str, Any]]:
        """The decisions after the first `seen`, oldest first, as far as they are still kept."""
        fresh = min(self.count - seen, len(self._decisions))
        return list(self._decisions)[-fresh:] if fresh else []

    def merged(self, own: dict[str, Any], since: int) -> dict[str, Any]:
        """The snapshot of all workers, with the seconds from `since` on."""
        merged = merge_snapshots(own, (report.snapshot for report in self._reports.values()))
        return merged | {"seconds": [second for second in merged["seconds"] if second["at"] >= since]}


def _read(answer: bytes) -> Report:
    return msgspec.json.decode(answer, type=Report)
