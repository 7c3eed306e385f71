"""Reads the rows of an export, a page at a time: one long transaction would let the log of SQLite grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Engine, Table, select

from gateway.evidence.database import EvidenceUnavailable, cause_of, explained, is_sqlite
from gateway.evidence.exporting.selection import Selection, during, selected

_PAGE = 2_000
"""Rows of a page."""


def slices(engine: Engine, table: Table, some: Selection) -> Iterator[Selection]:
    """Parts of the selection that follow each other, with a page of rows in each or fewer.

    Rows of the same time are in the same part, however many there are. Raises: EvidenceUnavailable.
    """
    begin = some.since
    while begin < some.until:
        end = _time_of(engine, table, begin, some.until, _PAGE)
        if end is not None and end <= begin:
            end = _time_after(engine, table, begin, some.until)
        yield msgspec.structs.replace(some, since=begin, until=some.until if end is None else end)
        if end is None:
            return
        begin = end


def more_than(engine: Engine, table: Table, some: Selection, rows: int) -> bool:
    """Whether so many rows are in the time of the selection. Raises: EvidenceUnavailable."""
    return _time_of(engine, table, some.since, some.until, rows) is not None


def _time_of(engine: Engine, table: Table, since: float, until: float, place: int) -> float | None:
    """The time of the row at this place, counted from 0; by the index on the times alone."""
    query = select(table.c.at).where(during(table, since, until)).order_by(table.c.at).offset(place).limit(1)
    with explained(), engine.connect() as connection:
        return connection.scalar(query)


def _time_after(engine: Engine, table: Table, time: float, until: float) -> float | None:
    query = select(table.c.at).where(table.c.at > time, table.c.at < until).order_by(table.c.at).limit(1)
    with explained(), engine.connect() as connection:
        return connection.scalar(query)


def pages(engine: Engine, table: Table, part: Selection) -> Iterator[Sequence[Sequence[Any]]]:
    """The rows of a slice, oldest first, a list at a time, as the driver gives them.

    Raises: EvidenceUnavailable.
    """
    # SQLite's index has rows of one time in the order in which they came. To sort them costs a third more.
    order = [table.c.at] if is_sqlite(engine) else [table.c.at, *table.primary_key]
    query = select(table).where(selected(table, part)).order_by(*order)
    most = 2 * _PAGE  # a slice has more rows only if many are of the same time
    with _explained(engine), engine.connect() as connection:
        cursor: Any = connection.execute(query).cursor  # rows of SQLAlchemy's own would take twice the time
        while len(found := cursor.fetchmany(most)) == most:
            yield found
    if found:
        yield found  # whoever takes long with them keeps no transaction open


@contextmanager
def _explained(engine: Engine) -> Iterator[None]:
    """The errors of the driver, too."""
    with explained():
        try:
            yield
        except engine.dialect.loaded_dbapi.Error as error:
            raise EvidenceUnavailable(cause_of(error)) from error
