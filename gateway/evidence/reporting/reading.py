"""Reads what a report is made from. It blocks: call it in a thread.

One pass over the decisions makes a small temporary table. Its sums by conversation are a second one, from
which both arms are summed up. Feedback is on few of the decisions, so it begins there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
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
    union_all,
)

from gateway.config.costs import CostSettings
from gateway.evidence.database import EvidenceStore, explained, is_sqlite
from gateway.evidence.quality import ADAPTIVE, HOLDOUT
from gateway.evidence.reading import SUMMARY_TIMEOUT, mean_scores
from gateway.evidence.reporting.cells import (
    ArmCell,
    ConfigCell,
    DayCell,
    Grouping,
    ReportCells,
    ReportedAmount,
)
from gateway.evidence.reporting.estimates import ClusterSums
from gateway.evidence.reporting.expressions import (
    gpu_hours_of_request,
    minimum_of_request,
    money_of_request,
    one_if,
)
from gateway.evidence.reporting.happenings import read_alarms, read_promotions
from gateway.evidence.reporting.periods import compared_configs
from gateway.evidence.schema import decisions

_NAMES = ("arm", "config", "model", "key", "team", "conversation")
_USED: tuple[ReportedAmount, ...] = ("tokens", "money", "gpu_hours")
_AMOUNTS: tuple[ReportedAmount, ...] = (*_USED, "score")


def _temporary(name: str, texts: Iterable[str], whole: Iterable[str], numbers: Iterable[str]) -> Table:
    """A table that lives as long as the transaction."""
    columns = [
        Column(column, kind)
        for kind, names in ((String, texts), (Integer, whole), (Double, numbers))
        for column in names
    ]
    return Table(name, MetaData(), *columns, prefixes=["TEMPORARY"])


_asked = _temporary(
    "report_requests",
    _NAMES,
    ("day", "tokens", "shortened", "refused", "failed", "floored", "below"),
    ("money", "gpu_hours", "price"),
)
"""What the report needs of each request."""
_judged = _temporary("report_judged", _NAMES, (), ("score",))
"""The requests with feedback."""
_talks = Table(
    "report_conversations",
    MetaData(),
    *(Column(name, String, primary_key=True) for name in ("conversation", "arm", "grouped", "config")),
    Column("judged", Integer, primary_key=True, autoincrement=False),
    *(Column(name, Integer) for name in ("requests", "failed", *(f"{each}_n" for each in _AMOUNTS))),
    *(Column(f"{name}_y", Double) for name in _AMOUNTS),
    prefixes=["TEMPORARY"],
    sqlite_with_rowid=False,  # in the order of its key, so that sums by conversation need no sorting
)
"""Of each conversation how many requests have an amount (n), and the sum of it (y)."""


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
        _fill(connection, _asked, _requests(since, until, costs, sqlite=sqlite))
        _fill(connection, _judged, _scores(since, until))
        _fill(connection, _talks, _conversations(by))
        configs = [ConfigCell(*row) for row in connection.execute(_configs())]
        compared = compared_configs(configs)
        return ReportCells(
            since,
            until,
            configs,
            _arms(connection, compared, grouped=False),
            _arms(connection, compared, grouped=True) if by else [],
            [DayCell(*row) for row in connection.execute(_days())],
            read_promotions(connection, since, until),
            read_alarms(connection, since, until),
        )


def _fill(connection: Connection, table: Table, query: Select[Any] | CompoundSelect[Any]) -> None:
    table.create(connection)
    connection.execute(insert(table).from_select(list(query.selected_columns.keys()), query))


def _requests(since: float, until: float, costs: CostSettings, *, sqlite: bool) -> Select[Any]:
    c = decisions.c
    floored, lowest = minimum_of_request(sqlite=sqlite)
    shortened = c.wanted_rung.is_not(None)
    columns: dict[str, ColumnElement[Any]] = {
        **_named(),
        # no floor() in some SQLite, and a cast rounds on PostgreSQL
        "day": cast(c.at / 86_400 if sqlite else func.floor(c.at / 86_400), Integer),
        "tokens": c.completion_tokens,
        "shortened": one_if(and_(shortened, c.reason == "budget")),
        "refused": one_if(c.status == 429),
        "failed": one_if(c.status >= 400),
        "floored": one_if(floored),
        "below": case((and_(shortened, floored), one_if(c.rung < lowest)), else_=0),
        "money": money_of_request(costs),
        "gpu_hours": gpu_hours_of_request(costs),
        "price": c.price,
    }
    return select(*_labelled(columns)).where(c.at >= since, c.at < until)


def _named() -> dict[str, ColumnElement[Any]]:
    """A request without a conversation is one of its own; without a key or team it has an empty one."""
    c = decisions.c
    others = {"conversation": c.id, "key": literal("", String), "team": literal("", String)}
    return {name: func.coalesce(c[name], others[name]) if name in others else c[name] for name in _NAMES}


def _labelled(columns: dict[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [value.label(name) for name, value in columns.items()]


def _scores(since: float, until: float) -> Select[Any]:
    c, scores = decisions.c, mean_scores()
    return (
        select(*_labelled(_named()), scores.c.score)
        .select_from(scores.join(decisions, c.id == scores.c.decision))
        .where(c.at >= since, c.at < until)
    )


def _conversations(by: Grouping | None) -> CompoundSelect[Any]:
    """Two rows for a conversation with feedback: one of its requests, one of its scores."""
    halves: list[Select[Any]] = []
    for table, own in ((_asked, _USED), (_judged, ("score",))):
        c = table.c
        names: dict[str, ColumnElement[Any]] = {
            "conversation": c.conversation,
            "arm": c.arm,
            "grouped": c[by] if by else literal("", String),
            "config": c.config,
            "judged": literal(int(table is _judged), Integer),
        }
        sums: dict[str, ColumnElement[Any]] = {
            "requests": func.count() if table is _asked else literal(0, Integer),
            "failed": func.sum(c.failed) if table is _asked else literal(0, Integer),
            **{f"{name}_n": func.count(c[name]) if name in own else literal(0, Integer) for name in _AMOUNTS},
            **{
                f"{name}_y": func.coalesce(cast(func.sum(c[name]), Double), 0.0)
                if name in own
                else literal(0.0, Double)
                for name in _AMOUNTS
            },
        }
        group = [c.conversation, c.arm, *([c[by]] if by else []), c.config]
        halves.append(select(*_labelled(names | sums)).group_by(*group))
    return union_all(*halves)


def _configs() -> Select[Any]:
    t = _talks.c
    sums = [func.sum(each) for each in (t.requests, t.tokens_n, t.score_n, t.failed)]
    requests, *others = sums
    return (
        select(
            *(t.config, t.arm, requests, func.sum(one_if(t.requests > 0)), *others),
            func.sum(t.tokens_n - t.money_n),
        )
        .group_by(t.config, t.arm)
        .order_by(t.config, t.arm)
    )


def _arms(connection: Connection, configs: Sequence[str], *, grouped: bool) -> list[ArmCell]:
    """Sums over conversations by arm and group, also of squares and products, so that no row is read."""
    t = _talks.c
    group = [t.grouped] if grouped else []
    columns = [t[f"{name}_{kind}"] for name in _AMOUNTS for kind in "ny"]
    each = (
        select(*group, t.arm, *(func.sum(column).label(column.name) for column in columns))
        .where(t.config.in_(configs), or_(t.arm == ADAPTIVE, t.arm == HOLDOUT))
        .group_by(t.conversation, t.arm, *group)
        .subquery()
        .c
    )
    sums: list[ColumnElement[Any]] = [func.count()]
    for name in _AMOUNTS:
        n, y = each[f"{name}_n"], each[f"{name}_y"]
        sums += [func.sum(one_if(n > 0)), func.sum(n), func.sum(y)]
        sums += [func.sum(cast(n, Double) * n), func.sum(y * y), func.sum(y * n)]
    by = [each.grouped, each.arm] if grouped else [each.arm]
    query = select(*(by if grouped else [null(), each.arm]), *sums).group_by(*by).order_by(*by)
    return [_arm(row) for row in connection.execute(query)]


def _arm(row: Sequence[Any]) -> ArmCell:
    group, arm, conversations, *sums = row
    found = {name: _sums(*sums[6 * at : 6 * at + 6]) for at, name in enumerate(_AMOUNTS)}
    return ArmCell(group or None, arm, conversations, found)


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
