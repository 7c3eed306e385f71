"""Reads what a report is made from. It blocks: call it in a thread.

One pass over the decisions makes a small temporary table, and everything else is summed up from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    and_,
    case,
    cast,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    text,
)

from gateway.config.costs import CostSettings
from gateway.evidence.database import EvidenceStore, explained, is_sqlite
from gateway.evidence.quality import ADAPTIVE, HOLDOUT
from gateway.evidence.reading import SUMMARY_TIMEOUT, mean_scores
from gateway.evidence.reporting.cells import Amount, ArmCell, ConfigCell, DayCell, Grouping, ReportCells
from gateway.evidence.reporting.estimates import ClusterSums
from gateway.evidence.reporting.happenings import read_alarms, read_promotions
from gateway.evidence.reporting.periods import compared_configs
from gateway.evidence.schema import decisions

_MILLION = 1e6
_AMOUNTS: tuple[Amount, ...] = ("tokens", "money", "gpu_hours", "score")

_asked = Table(
    "report_requests",
    MetaData(),
    Column("day", Integer),
    *(Column(name, String) for name in ("arm", "config", "model", "key", "team", "conversation")),
    *(Column(name, Integer) for name in ("tokens", "shortened", "refused", "failed", "floored", "below")),
    *(Column(name, Double) for name in ("money", "gpu_hours", "score", "price")),
    prefixes=["TEMPORARY"],
)
"""What the report needs of each request. It lives as long as the transaction."""


def read_report(
    engine: EvidenceStore, since: float, until: float, costs: CostSettings, by: Grouping | None = None
) -> ReportCells:
    """Sums over the decisions from `since` to before `until`, with all feedback on them.

    by: also sum up by key, team or model.

    Raises: EvidenceUnavailable.
    """
    sqlite = is_sqlite(engine)
    with explained(), engine.connect() as connection:  # what it makes is rolled back at its end
        if not sqlite:
            connection.execute(text(f"SET LOCAL statement_timeout = '{SUMMARY_TIMEOUT}'"))
        _asked.create(connection)
        query = _requests(since, until, costs, sqlite=sqlite)
        connection.execute(insert(_asked).from_select(list(query.selected_columns.keys()), query))
        configs = [ConfigCell(*row) for row in connection.execute(_configs())]
        compared = compared_configs(configs)
        return ReportCells(
            since,
            until,
            configs,
            _arms(connection, compared, None),
            _arms(connection, compared, by) if by else [],
            [DayCell(*row) for row in connection.execute(_days())],
            read_promotions(connection, since, until),
            read_alarms(connection, since, until),
        )


def _requests(since: float, until: float, costs: CostSettings, *, sqlite: bool) -> Select[Any]:
    c, scores = decisions.c, mean_scores()
    floored, lowest = _minimum(sqlite=sqlite)
    shortened = c.wanted_rung.is_not(None)
    refused = c.status == 429
    columns: dict[str, ColumnElement[Any]] = {
        # no floor() in some SQLite, and a cast rounds on PostgreSQL
        "day": cast(c.at / 86_400 if sqlite else func.floor(c.at / 86_400), Integer),
        **{name: c[name] for name in ("arm", "config", "model", "key", "team")},
        "conversation": func.coalesce(c.conversation, c.id),
        "tokens": c.completion_tokens,
        "shortened": _one(and_(shortened, c.reason == "budget")),
        "refused": _one(refused),
        "failed": _one(c.status >= 400),
        "floored": _one(floored),
        "below": case((and_(shortened, floored), _one(c.rung < lowest)), else_=0),
        "money": _by_model(_money(costs)),
        "gpu_hours": _by_model(_gpu_hours(costs)),
        "score": scores.c.score,
        "price": c.price,
    }
    return (
        select(*(value.label(name) for name, value in columns.items()))
        .select_from(decisions.join(scores, c.id == scores.c.decision, isouter=True))
        .where(c.at >= since, c.at < until)
    )


def _one(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)


def _minimum(*, sqlite: bool) -> tuple[ColumnElement[bool], ColumnElement[int]]:
    """Whether a request has a minimum above the shortest rung, and which. It is in the JSON of `rungs`."""
    rungs = decisions.c.rungs
    if sqlite:
        first = func.instr(rungs, b'"lowest":0,')
        given = func.instr(rungs, b'"lowest":')
        lowest = func.json_extract(cast(rungs, String), "$.lowest")
    else:
        as_text = func.convert_from(rungs, "UTF8")
        first, given = func.strpos(as_text, '"lowest":0,'), func.strpos(as_text, '"lowest":')
        lowest = func.jsonb_extract_path_text(as_text.op("::")(text("jsonb")), "lowest")
    return and_(given > 0, first == 0), cast(lowest, Integer)


def _by_model(amounts: dict[str, ColumnElement[float]]) -> ColumnElement[float]:
    """The amount of a request by its model; NULL for other models."""
    if not amounts:
        return cast(null(), Double)
    return case(*((decisions.c.model == model, amount) for model, amount in amounts.items()))


def _money(costs: CostSettings) -> dict[str, ColumnElement[float]]:
    """NULL if the completion tokens are unknown. Unknown prompt tokens count as none."""
    prompt, completion = func.coalesce(decisions.c.prompt_tokens, 0), decisions.c.completion_tokens
    return {
        model: prompt * literal(each.prompt / _MILLION, Double)
        + completion * literal((each.completion + each.gpu_hours * costs.gpu_hour) / _MILLION, Double)
        for model, each in costs.models.items()
    }


def _gpu_hours(costs: CostSettings) -> dict[str, ColumnElement[float]]:
    return {
        model: decisions.c.completion_tokens * literal(each.gpu_hours / _MILLION, Double)
        for model, each in costs.models.items()
    }


def _configs() -> Select[Any]:
    a = _asked.c
    return (
        select(
            *(a.config, a.arm, func.count(), func.count(a.conversation.distinct())),
            *(func.count(a.tokens), func.count(a.score), func.sum(a.failed)),
            func.count(a.tokens).filter(a.money.is_(None)),
        )
        .group_by(a.config, a.arm)
        .order_by(a.config, a.arm)
    )


def _arms(connection: Connection, configs: Sequence[str], by: Grouping | None) -> list[ArmCell]:
    """Sums over conversations by arm and group, also of squares and products, so that no row is read."""
    a = _asked.c
    group = [a[by].label("grouped")] if by else []
    each = (
        select(
            *(*group, a.arm, a.conversation),
            *(func.count(a[name]).label(f"{name}_n") for name in _AMOUNTS),
            *(cast(func.coalesce(func.sum(a[name]), 0), Double).label(f"{name}_y") for name in _AMOUNTS),
        )
        .where(a.config.in_(configs), or_(a.arm == ADAPTIVE, a.arm == HOLDOUT))
        .group_by(*group, a.arm, a.conversation)
        .subquery()
        .c
    )
    sums: list[ColumnElement[Any]] = []
    for name in _AMOUNTS:
        n, y = each[f"{name}_n"], each[f"{name}_y"]
        sums += [func.sum(_one(n > 0)), func.sum(n), func.sum(y)]
        sums += [func.sum(cast(n, Double) * n), func.sum(y * y), func.sum(y * n)]
    by_ = [each.grouped, each.arm] if by else [each.arm]
    query = select(*(by_ if by else [null(), each.arm]), *sums).group_by(*by_).order_by(*by_)
    return [_arm(row) for row in connection.execute(query)]


def _arm(row: Sequence[Any]) -> ArmCell:
    group, arm, *sums = row
    found = {name: _sums(*sums[6 * at : 6 * at + 6]) for at, name in enumerate(_AMOUNTS)}
    return ArmCell(group, arm, found)


def _sums(clusters: int, requests: int, *others: float) -> ClusterSums:
    """PostgreSQL gives sums of integers as decimals."""
    return ClusterSums(int(clusters), int(requests), *others)


def _days() -> Select[Any]:
    a = _asked.c
    return (
        select(
            *(a.day, func.count(), func.coalesce(func.sum(a.tokens), 0)),
            *(func.sum(a.price), func.max(a.price), func.sum(a.shortened), func.sum(a.refused)),
            func.sum(a.floored),
            func.sum(a.floored * a.refused),
            func.sum(a.floored * (a.failed - a.refused)),
            func.sum(a.below),
        )
        .group_by(a.day)
        .order_by(a.day)
    )
