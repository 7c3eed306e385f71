"""Takes feedback about answers into the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine

from gateway.evidence.database import EvidenceUnavailable
from gateway.evidence.errors import FeedbackUnavailable
from gateway.evidence.feedback import Decided, Feedback, FeedbackOutcome, Rater, Ruling, judge
from gateway.evidence.feedback_lookup import KnownDecisions, id_of, look_up
from gateway.evidence.writer import EvidenceWriter

_PAUSES = (0.02, 0.1, 0.4, 1.1)
"""Seconds between two looks for a decision: that of another gateway or worker is written within a second."""
_OPENING_SECONDS = 5.0
"""For which a gateway that has just started may open its store."""
_RETRY_AFTER = 5.0
_QUEUED_SECONDS = 10.0
"""For which what was queued may not be written yet. Later, another gateway may have replaced it."""
_REMEMBERED = 10_000
"""Decisions about which something was queued."""


class FeedbackDesk:
    """Checks what clients say about answers against the store, and queues it for writing."""

    def __init__(
        self,
        writer: EvidenceWriter,
        *,
        note_finished: Callable[[], None] = lambda: None,
        count: Callable[[FeedbackOutcome], None] = lambda _: None,
        count_judged: Callable[[Decided, float], None] = lambda _decision, _score: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """writer: started, and closed by its owner.

        note_finished: queues the decisions of finished requests that wait for it.
        count: is told every outcome.
        count_judged: is told every decision that a source judges for the first time, and the score.
        """
        self._writer = writer
        self._note_finished = note_finished
        self._count = count
        self._count_judged = count_judged
        self._clock = clock
        self._queued: dict[str, tuple[float, dict[str, float]]] = {}
        """By decision: when something was last queued about it, and the scores by source. Oldest first."""
        self._threads = ThreadPoolExecutor(2, "feedback")

    def close(self) -> None:
        """Stop the threads. Looks under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def take(self, items: Sequence[Feedback], rater: Rater) -> list[Ruling]:
        """Queue what can be taken of some items, and tell what became of each.

        Raises: FeedbackUnavailable, if the store is away. Then nothing was taken.
        """
        try:
            known = await self._known(items, rater)
        except FeedbackUnavailable:
            for _ in items:
                self._count("unavailable")
            raise
        rulings = [self._take(item, rater, known) for item in items]
        for ruling in rulings:
            self._count(ruling.outcome)
        return rulings

    def _take(self, item: Feedback, rater: Rater, known: KnownDecisions) -> Ruling:
        found = known.decisions[id_of(item)]
        now = self._clock()
        said = {source: score for each in found for source, score in self._said(each.id, known, now).items()}
        ruling = judge(item, rater, found, said, now)
        if (row := ruling.row) is None:
            return ruling
        if not self._writer.put(row):
            return Ruling("unavailable", error=_unavailable("too many rows wait"))
        if ruling.judged:
            self._count_judged(ruling.judged, row.score)
        _, queued = self._queued.pop(row.decision, (now, {}))
        self._queued[row.decision] = now, queued | {row.source: row.score}
        if len(self._queued) > _REMEMBERED:
            del self._queued[next(iter(self._queued))]
        return ruling

    def _said(self, decision: str, known: KnownDecisions, now: float) -> dict[str, float]:
        """What was said about a decision, written or queued."""
        at, queued = self._queued.get(decision, (now, {}))
        return known.said[decision] | (queued if abs(now - at) < _QUEUED_SECONDS else {})

    async def _known(self, items: Sequence[Feedback], rater: Rater) -> KnownDecisions:
        """What the store has about some items.

        A decision that is not there, or belongs to another key, is looked for again for a while. So the time
        does not tell which of both it is.
        """
        known = await self._look(items, rater)
        for pause in _PAUSES:
            missing = [item for item in items if not any(map(rater.made, known.decisions[id_of(item)]))]
            if not missing:
                break
            self._note_finished()
            self._writer.hurry()
            await asyncio.sleep(pause)
            later = await self._look(missing, rater)
            known.decisions |= later.decisions
            known.said |= later.said
        return known

    async def _look(self, items: Sequence[Feedback], rater: Rater) -> KnownDecisions:
        engine = await self._store()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, look_up, engine, items, rater)
        except EvidenceUnavailable as error:
            raise _unavailable(str(error)) from None

    async def _store(self) -> Engine:
        """The store, once it is open. Raises: FeedbackUnavailable."""
        writer, waited = self._writer, 0.0
        while writer.engine is None and not writer.failing and waited < _OPENING_SECONDS:
            await asyncio.sleep(_OPENING_SECONDS / 50)
            waited += _OPENING_SECONDS / 50
        if writer.engine is None or writer.failing:
            raise _unavailable(writer.failing)
        return writer.engine


def _unavailable(detail: str | None = None) -> FeedbackUnavailable:
    text = "The store of evidence takes nothing for now: send this again later"
    return FeedbackUnavailable(text, retry_after=_RETRY_AFTER, detail=detail)
