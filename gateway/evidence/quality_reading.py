"""Reads what the store says about the quality of answers. It blocks: call it in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Integer, Select, and_, case, cast, func, select, text

from gateway.evidence.database import EvidenceStore, explained, is_sqlite
from gateway.evidence.quality import Quality, quality_of
from gateway.evidence.quality_cells import CalibrationCell, JudgedAnswer, PairCell
from gateway.evidence.reading import SUMMARY_TIMEOUT, mean_scores, summary
from gateway.evidence.schema import decisions, feedback, shadow_pairs

_NEWEST = 12


def read_quality(engine: EvidenceStore, since: float, until: float) -> Quality:
    """What the decisions and pairs from `since` to before `until` say, and the newest feedback.

    Raises: EvidenceUnavailable.
    """
    cells = summary(engine, since, until)
    with explained(), engine.connect() as connection:
        if not is_sqlite(engine):
            connection.execute(text(f"SET LOCAL statement_timeout = '{SUMMARY_TIMEOUT}'"))

        def rows(query: Select[Any]) -> Sequence[Any]:
            return connection.execute(query).all()

        calibration = [CalibrationCell(*row) for row in rows(_calibration(since, until))]
        pairs = [PairCell(*row) for row in rows(_pairs(since, until))]
        newest = [JudgedAnswer(*row) for row in rows(_newest())]
    return quality_of(cells, calibration, pairs, newest)


def _calibration(since: float, until: float) -> Select[Any]:
    c = decisions.c
    scores = mean_scores()
    # no floor(): SQLite may lack it, and a cast rounds on PostgreSQL
    tenth = sum(
        (case((c.correct >= edge / 10, 1), else_=0) for edge in range(2, 10)),
        case((c.correct >= 0.1, 1), else_=0),
    )
    return (
        select(c.model, tenth.label("tenth"), func.count(), func.sum(c.correct), func.sum(scores.c.score))
        .select_from(scores.join(decisions, c.id == scores.c.decision))
        .where(c.at >= since, c.at < until)
        .group_by(c.model, "tenth")
        .order_by(c.model, "tenth")
    )


def _pairs(since: float, until: float) -> Select[Any]:
    c = shadow_pairs.c
    graded = and_(c.served_score.is_not(None), c.shadow_score.is_not(None))
    counted = and_(c.served_tokens.is_not(None), c.shadow_tokens.is_not(None))
    group = (c.model, c.served_rung, c.shadow_rung)
    return (
        select(
            *group,
            func.count().filter(c.served_score > c.shadow_score),
            func.count().filter(c.served_score == c.shadow_score),
            func.count().filter(c.served_score < c.shadow_score),
            func.count().filter(~graded),
            func.coalesce(func.sum(cast(c.flipped, Integer)), 0),
            func.coalesce(func.sum(c.served_tokens).filter(counted), 0),
            func.coalesce(func.sum(c.shadow_tokens).filter(counted), 0),
        )
        .where(c.at >= since, c.at < until)
        .group_by(*group)
        .order_by(*group)
    )


def _newest() -> Select[Any]:
    f, d = feedback.c, decisions.c
    newest = select(feedback).order_by(f.at.desc()).limit(_NEWEST).subquery().c
    return (
        select(newest.at, d.model, d.tier, d.arm, newest.source, newest.score)
        .join_from(newest.at.table, decisions, d.id == newest.decision, isouter=True)
        .order_by(newest.at.desc())
    )
