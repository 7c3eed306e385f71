"""Which rows are read, in which order, and the conditions that say so. No I/O."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import ColumnElement, Table, and_, select

from gateway.evidence.schema import STORED, decisions


class Selection(Struct, frozen=True):
    """Which rows to read: from `since` to before `until`, of one model or of all."""

    since: float
    until: float
    model: str | None = None


def table_named(name: str) -> Table:
    """Raises: KeyError."""
    return {table.name: table for table in STORED.values()}[name]


def selected(table: Table, some: Selection) -> ColumnElement[bool]:
    """The condition for rows of the table."""
    wanted = [during(table, some.since, some.until)]
    if some.model is not None:
        wanted.append(
            table.c.model == some.model
            if "model" in table.c
            else _decided(table, decisions.c.model == some.model)
        )
    return and_(*wanted)


def during(table: Table, since: float, until: float) -> ColumnElement[bool]:
    """From `since` to before `until`."""
    return and_(table.c.at >= since, table.c.at < until)


def _decided(table: Table, which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Rows about such a decision, which is looked up for each row: the store may have a million others."""
    return select(decisions.c.id).where(decisions.c.id == table.c.decision, which).correlate(table).exists()
