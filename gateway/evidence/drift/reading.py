"""Reads what the watch for drift follows. It blocks: call it in a thread, not on the event loop."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, exists, or_, select, text

from gateway.evidence.database import EvidenceStore, explained, is_sqlite
from gateway.evidence.drift.watch import Seen
from gateway.evidence.reading import SUMMARY_TIMEOUT
from gateway.evidence.schema import decisions, feedback, shadow_pairs

MOST_ROWS = 100_000
"""Rows of one kind per look. Of more, the newest are seen."""
_CHOSEN = ("price", "abstained")
_PRIOR = "prior"


def graded_answers(engine: EvidenceStore, since: float, until: float) -> list[tuple[str, Seen]]:
    """Answers whose first judgment came from `since` to before `until`, oldest first.

    With the ids of their decisions.

    Raises: EvidenceUnavailable.
    """
    c, f, other = decisions.c, feedback.c, feedback.alias("other").c
    earlier = exists().where(
        other.decision == f.decision,
        or_(other.at < f.at, and_(other.at == f.at, other.source < f.source)),
    )
    query = (
        select(f.at, c.model, c.tier, c.head, c.reason, f.score, c.correct, c.id)
        .join_from(f.at.table, decisions, c.id == f.decision)
        .where(f.at >= since, f.at < until, ~earlier)
        .order_by(f.at.desc())
        .limit(MOST_ROWS)
    )
    return [
        (name, Seen(at, model, tier, head, reason == _PRIOR, score, correct))
        for at, model, tier, head, reason, score, correct, name in reversed(_rows(engine, query))
    ]


def answered(engine: EvidenceStore, since: float, until: float) -> list[Seen]:
    """Decisions from `since` to before `until` whose answer came whole, oldest first.

    Raises: EvidenceUnavailable.
    """
    c = decisions.c
    query = (
        select(c.at, c.model, c.tier, c.head, c.reason, c.tokens, c.completion_tokens, c.truncated)
        .where(c.at >= since, c.at < until, c.status < 400, ~c.cancelled)
        .order_by(c.at.desc())
        .limit(MOST_ROWS)
    )
    return [
        Seen(
            *(at, model, tier, head, reason == _PRIOR),
            expected=expected,
            tokens=None if truncated or reason in ("budget", "context") else tokens,
            abstained=reason == "abstained" if reason in _CHOSEN else None,
        )
        for at, model, tier, head, reason, expected, tokens, truncated in reversed(_rows(engine, query))
    ]


def compared_pairs(engine: EvidenceStore, since: float, until: float) -> list[Seen]:
    """Graded shadow pairs from `since` to before `until`, oldest first.

    Raises: EvidenceUnavailable.
    """
    s, c = shadow_pairs.c, decisions.c
    query = (
        select(s.at, s.model, c.tier, s.head, c.reason, s.served_score, s.shadow_score)
        .join_from(s.at.table, decisions, c.id == s.decision)
        .where(s.at >= since, s.at < until, s.served_score.is_not(None), s.shadow_score.is_not(None))
        .order_by(s.at.desc())
        .limit(MOST_ROWS)
    )
    return [
        Seen(at, model, tier, head, reason == _PRIOR, lost=served < shadow)
        for at, model, tier, head, reason, served, shadow in reversed(_rows(engine, query))
    ]


def _rows(engine: EvidenceStore, query: Select[Any]) -> list[Any]:
    with explained(), engine.connect() as connection:
        if not is_sqlite(engine):
            connection.execute(text(f"SET LOCAL statement_timeout = '{SUMMARY_TIMEOUT}'"))
        return list(connection.execute(query).all())
