"""Looks at new evidence from time to time, tells what drifts, and sets the valve."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from msgspec import to_builtins

from gateway.config.evidence import DriftSettings
from gateway.evidence.database import EvidenceStore, EvidenceUnavailable
from gateway.evidence.drift.reading import answered, compared_pairs, graded_answers
from gateway.evidence.drift.watch import PRIOR_SUFFIX, QUARTER, DriftFound, DriftPlace, Watch
from gateway.evidence.writer import EvidenceWriter
from gateway.routing.router import DriftValve
from gateway.snapshot import Snapshot
from gateway.telemetry.evidence_metrics import DriftSeries

log = logging.getLogger("thinkmeter.drift")

_SETTLED = 10.0
"""Seconds after which all gateways have written the rows of a time."""
_DECISIONS = 7 * 86_400.0
"""Seconds of decisions that a gateway reads when it starts. Of judgments and pairs it reads a quarter."""
_MOST_JUDGED = 200_000
_OPENING = 1.0
"""Seconds between two looks while the store is being opened."""
_IDLE = 60.0
"""Seconds between two looks at whether drift is watched at all."""
_TOLD = {
    "right": "answers are right less often than the head says",
    "tokens": "answers take other numbers of tokens than the head says",
    "pairs": "another share of answers than before loses against its shadow",
    "abstained": "another share of prompts than before is unlike the head's training data",
}


class ServingSnapshot(Protocol):
    """What the gateway is doing."""

    @property
    def snapshot(self) -> Snapshot:
        """What the next request will be served with."""
        ...


class DriftLook:
    """Follows the evidence in a thread, while the configuration wants it."""

    def __init__(
        self, writer: EvidenceWriter, gateway: ServingSnapshot, clock: Callable[[], float] = time.time
    ) -> None:
        """writer: started, and closed by its owner."""
        self._writer = writer
        self._gateway = gateway
        self._clock = clock
        self._watch: Watch | None = None
        self._watched: DriftSettings | None = None
        self._until = 0.0
        self._judged: dict[str, None] = {}
        """Decisions whose judgment was seen: one that is sent again does not count again."""
        self._alarms: frozenset[DriftPlace] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self.found: list[DriftFound] = []
        """The state of all streams at the last look."""

    def start(self) -> None:
        """Begin to look, in the background."""
        self._task = asyncio.create_task(self._run(), name="drift")

    async def stop(self) -> None:
        """Look no more. A reading under way ends by itself."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def series(self) -> list[DriftSeries]:
        """The streams of the head in use, for metrics: of each tier the one with more evidence."""
        head = self._gateway.snapshot.router.versions["head"]
        worst: dict[tuple[str, str, str], DriftSeries] = {}
        for found in self.found:
            place, alarm = found.place, found.since is not None
            if place.head.removesuffix(PRIOR_SUFFIX) == head:
                one = DriftSeries(place.model, place.tier, place.kind, found.evidence, alarm)
                other = worst.setdefault(one.key, one)
                if (one.alarm, one.evidence) > (other.alarm, other.evidence):
                    worst[one.key] = one
        return list(worst.values())

    def shown(self) -> dict[str, Any]:
        """The streams for the console, and what an alarm does."""
        settings = self._gateway.snapshot.settings.drift
        return {"on_drift": settings.on_drift if settings else None, "streams": to_builtins(self.found)}

    def fallen(self) -> frozenset[str]:
        """The models about whose right answers an alarm stands, under the head in use."""
        head = self._gateway.snapshot.router.versions["head"]
        alarms = (one.place for one in self.found if one.since is not None)
        return frozenset(one.model for one in alarms if one.kind == "right" and one.head == head)

    async def _run(self) -> None:
        while True:
            await self.look()
            settings = self._gateway.snapshot.settings.drift
            ready = self._writer.engine is not None or settings is None
            await asyncio.sleep((settings.every if settings else _IDLE) if ready else _OPENING)

    async def look(self) -> None:
        """Look once, and set the valve. A store that is away changes nothing."""
        settings = self._gateway.snapshot.settings.drift
        if settings is None:
            self._watch = self._watched = None
            self.found = []
        elif self._writer.engine is not None and not self._writer.failing:
            if self._watch is None or self._watched is None or self._watched.tolerance != settings.tolerance:
                self._watch, self._until, self._judged = Watch(settings.tolerance), 0.0, {}
            self._watched = settings
            try:
                self.found = await asyncio.to_thread(self._read, self._writer.engine, self._watch)
            except EvidenceUnavailable as error:
                log.warning("drift was not looked for: %s", error)
                return
        self._act(settings)

    def _read(self, engine: EvidenceStore, watch: Watch) -> list[DriftFound]:
        now = self._clock() - _SETTLED
        begin = max(self._until, now - QUARTER)
        for name, row in graded_answers(engine, begin, now):
            if name not in self._judged:
                self._judged[name] = None
                watch.see(row)
        for row in compared_pairs(engine, begin, now):
            watch.see(row)
        for row in answered(engine, max(begin, now - _DECISIONS), now):
            watch.see(row)
        for name in list(self._judged)[: max(0, len(self._judged) - _MOST_JUDGED)]:
            del self._judged[name]
        self._until = now
        return list(watch.tell(now))

    def _act(self, settings: DriftSettings | None) -> None:
        """Say what is new, and treat the models with care whose answers this head judges wrongly."""
        alarms = frozenset(found.place for found in self.found if found.since is not None)
        for place in alarms - self._alarms:
            log.warning("drift: %s, %s", _name(place), _TOLD[place.kind])
        for place in self._alarms - alarms:
            log.warning("drift: the alarm about %s (%s) has ended", _name(place), place.kind)
        self._alarms = alarms
        router = self._gateway.snapshot.router
        head = router.versions["head"]
        models = frozenset(place.model for place in alarms if place.kind == "right" and place.head == head)
        act = settings.on_drift if settings else "alarm"
        router.valve = DriftValve(
            raised=models if act == "raise_floor" else frozenset(),
            prior=models if act == "prior" else frozenset(),
        )


def _name(place: DriftPlace) -> str:
    """The place as logs name it."""
    tier = f":{place.tier}" if place.tier else ""
    return f"{place.model}{tier}, head {place.head}"
