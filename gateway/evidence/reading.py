"""Reads the evidence store. Every function blocks: call it in a thread, not on the event loop."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Double,
    Engine,
    Select,
    Subquery,
    Table,
    and_,
    cast,
    func,
    select,
    text,
)

from gateway.evidence.database import explained, is_sqlite
from gateway.evidence.quality_cells import SummaryCell
from gateway.evidence.retention import used_bytes
from gateway.evidence.schema import STORED, decisions, feedback

_IDS_PER_QUERY = 500
SUMMARY_TIMEOUT = "60s"
"""Of a query of PostgreSQL that sums up many rows."""


class DecisionOwner(Struct, frozen=True):
    """Whose request a decision was about."""

    id: str
    at: float
    key: str | None


class FeedbackGiven(Struct, frozen=True):
    """What is in the store about an answer."""

    decision: str
    source: str
    at: float
    score: float


class TableState(Struct, frozen=True):
    """How much one table holds."""

    table: str
    rows: int
    first: float | None
    last: float | None


def decision_owners(engine: Engine, ids: Collection[str]) -> dict[str, DecisionOwner]:
    """Those of the decisions that are in the store, by id.

    Raises: EvidenceUnavailable.
    """
    query = select(decisions.c.id, decisions.c.at, decisions.c.key)
    return {row[0]: DecisionOwner(*row) for row in _by_ids(engine, query, decisions.c.id, ids)}


def feedback_given(engine: Engine, ids: Collection[str]) -> dict[tuple[str, str], FeedbackGiven]:
    """The feedback on the decisions, by decision and source.

    Raises: EvidenceUnavailable.
    """
    c = feedback.c
    query = select(c.decision, c.source, c.at, c.score)
    return {(row[0], row[1]): FeedbackGiven(*row) for row in _by_ids(engine, query, c.decision, ids)}


def _by_ids(
    engine: Engine, query: Select[Any], column: ColumnElement[str], ids: Collection[str]
) -> Iterator[tuple[Any, ...]]:
    wanted = list(dict.fromkeys(ids))
    with explained(), engine.connect() as connection:
        for at in range(0, len(wanted), _IDS_PER_QUERY):
            yield from map(
                tuple, connection.execute(query.where(column.in_(wanted[at : at + _IDS_PER_QUERY])))
            )


def summary(engine: Engine, since: float, until: float) -> list[SummaryCell]:
    """What was asked, used and right, by model, arm and rung, of decisions from `since` to before `until`.

    Raises: EvidenceUnavailable.
    """
    with explained(), engine.connect() as connection:
        if not is_sqlite(engine):
            connection.execute(text(f"SET LOCAL statement_timeout = '{SUMMARY_TIMEOUT}'"))
        totals = connection.execute(_totals(since, until)).all()
        rated = {tuple(row[:3]): row[3:] for row in connection.execute(_rated(since, until))}
    return [SummaryCell(*row, *rated.get(tuple(row[:3]), (0, 0.0, 0.0, 0.0, 0))) for row in totals]


def _within(since: float, until: float) -> ColumnElement[bool]:
    return and_(decisions.c.at >= since, decisions.c.at < until)


def _totals(since: float, until: float) -> Select[Any]:
    c = decisions.c
    group = (c.model, c.arm, c.rung)
    return (
        select(
            *group,
            func.max(c.tier),
            func.count(),
            func.count().filter(c.status >= 400),
            *(
                func.coalesce(func.sum(column), 0)
                for column in (c.prompt_tokens, c.completion_tokens, c.reasoning_tokens)
            ),
            func.count(c.completion_tokens),
            func.coalesce(func.sum(cast(c.completion_tokens, Double) * c.completion_tokens), 0.0),
            func.sum(c.tokens),
            func.sum(c.correct),
        )
        .where(_within(since, until))
        .group_by(*group)
        .order_by(*group)
    )


def mean_scores() -> Subquery:
    """Of each decision that was judged: the mean over its sources."""
    f = feedback.c
    return select(f.decision, func.avg(f.score).label("score")).group_by(f.decision).subquery()


def _rated(since: float, until: float) -> Select[Any]:
    """Begins with the feedback, which is on few of the decisions."""
    c = decisions.c
    scores = mean_scores()
    score = scores.c.score
    return (
        select(
            *(c.model, c.arm, c.rung),
            func.count(),
            func.sum(score),
            func.sum(score * score),
            func.sum(c.correct),
            func.coalesce(func.sum(c.completion_tokens), 0),
        )
        .select_from(scores.join(decisions, c.id == scores.c.decision))
        .where(_within(since, until))
        .group_by(c.model, c.arm, c.rung)
    )


def table_states(engine: Engine) -> list[TableState]:
    """The number of rows of every table, and their times.

    Raises: EvidenceUnavailable.
    """
    with explained(), engine.connect() as connection:
        return [
            TableState(str(table.name), *connection.execute(_state(table)).one()) for table in STORED.values()
        ]


def _state(table: Table) -> Select[Any]:
    """First and last by the index; the number takes a scan."""
    ends = (select(end(table.c.at)).scalar_subquery() for end in (func.min, func.max))
    return select(func.count(), *ends).select_from(table)


def store_bytes(engine: Engine) -> int:
    """The size of the store without what is free in it. On PostgreSQL an estimate.

    Raises: EvidenceUnavailable.
    """
    with explained(), engine.connect() as connection:
        return used_bytes(connection)


def newest_rows(engine: Engine, table: Table, number: int) -> list[dict[str, Any]]:
    """The last rows of a table, newest first.

    Raises: EvidenceUnavailable.
    """
    query = select(table).order_by(table.c.at.desc()).limit(number)
    with explained(), engine.connect() as connection:
        return [
            {str(name): value for name, value in row.items()} for row in connection.execute(query).mappings()
        ]
