"""Reads the shadow pairs that the promise of quality is tested on. It blocks: call it in a thread."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select, text

from gateway.evidence.database import EvidenceStore, explained, is_sqlite
from gateway.evidence.quality_promise.pairs import GradedPair, PromiseFound, promise_found
from gateway.evidence.reading import SUMMARY_TIMEOUT
from gateway.evidence.schema import decisions, shadow_pairs
from gateway.snapshot import Snapshot

_MOST = 20_000
"""Pairs of one model that are read, the oldest first."""


def graded_pairs(engine: EvidenceStore, model: str, head: str, since: float) -> list[GradedPair]:
    """The graded pairs that this head decided, oldest first, from `since` on. Raises: EvidenceUnavailable."""
    d, s = decisions.c, shadow_pairs.c
    query = (
        select(d.reason, d.price, d.rungs, s.served_rung, s.shadow_rung, s.served_score, s.shadow_score)
        .select_from(shadow_pairs.join(decisions, d.id == s.decision))
        .where(s.model == model, s.head == head, s.at >= since)
        .where(s.served_score.is_not(None), s.shadow_score.is_not(None))
        .order_by(s.at, s.id)
        .limit(_MOST)
    )
    with explained(), engine.connect() as connection:
        if not is_sqlite(engine):
            connection.execute(text(f"SET LOCAL statement_timeout = '{SUMMARY_TIMEOUT}'"))
        return [GradedPair(*row) for row in connection.execute(query)]


def read_promises(
    engine: EvidenceStore | None, snapshot: Snapshot, since: Mapping[str, float] | None = None
) -> list[PromiseFound]:
    """What is certified for every model that has several rungs; without a store nothing is.

    since: Unix times from which on the pairs of a model count.

    Raises: EvidenceUnavailable.
    """
    settings, router = snapshot.settings, snapshot.router
    quality = settings.quality
    if quality is None:
        return []
    found = []
    for model in settings.models:
        ladder = router.targets[model].ladder
        if len(ladder.thinking) < 2:
            continue
        head = router.versions["head"]
        pairs = [] if engine is None else graded_pairs(engine, model, head, (since or {}).get(model, 0.0))
        against = ladder.index(quality.against)
        found.append(
            promise_found(model, pairs, ladder.thinking, against, wanted=settings.price, quality=quality)
        )
    return found
