"""Which rows are read, in which order, and the conditions that say so. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import ColumnElement, Table, and_, false, or_, select

from gateway.evidence.schema import STORED, decisions, feedback


class Selection(Struct, frozen=True):
    """Which rows to read: from `since` to before `until`, and of these those that fulfil all else."""

    since: float
    until: float
    model: str | None = None
    keys: tuple[str, ...] | None = None
    """What these keys asked, and what was said about it or by them."""
    conversations: tuple[str, ...] | None = None
    """What belongs to decisions of these pseudonyms."""


def table_named(name: str) -> Table:
    """Raises: KeyError."""
    return {table.name: table for table in STORED.values()}[name]


def selected(table: Table, some: Selection) -> ColumnElement[bool]:
    """The condition for rows of the table. No row of `measurements` has a key or a conversation."""
    wanted = [during(table, some.since, some.until)]
    if some.model is not None:
        wanted.append(_with(table, "model", (some.model,)))
    if some.keys is not None:
        wanted.append(_of_keys(table, some.keys))
    if some.conversations is not None:
        wanted.append(_with(table, "conversation", some.conversations))
    return and_(*wanted)


def _of_keys(table: Table, keys: Sequence[str]) -> ColumnElement[bool]:
    if table is feedback:
        return or_(feedback.c.key.in_(keys), _decided(table, decisions.c.key.in_(keys)))
    return _with(table, "key", keys)


def _with(table: Table, column: str, values: Sequence[str]) -> ColumnElement[bool]:
    """One of the values is in the column: the table's own, or that of the decision that a row is about."""
    if column in table.c:
        return table.c[column].in_(values)
    return _decided(table, decisions.c[column].in_(values)) if "decision" in table.c else false()


def during(table: Table, since: float, until: float) -> ColumnElement[bool]:
    """From `since` to before `until`."""
    return and_(table.c.at >= since, table.c.at < until)


def _decided(table: Table, which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Rows about such a decision, which is looked up for each row: the store may have a million others."""
    return select(decisions.c.id).where(decisions.c.id == table.c.decision, which).correlate(table).exists()
