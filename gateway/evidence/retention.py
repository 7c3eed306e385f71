"""Deletes rows that are too old, and the oldest ones when the store is too large, a few at a time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from gateway.evidence.database import is_sqlite, writing
from gateway.evidence.schema import STORED, chores

_DAY = 86_400.0
LOOK_SECONDS = 60.0
"""From one look for old rows to the next, of all gateways of a store together."""
_STEP_SECONDS = 24 * LOOK_SECONDS
"""A look deletes rows of at most this much time. So a clock that is a year ahead for an hour costs a day."""
_SLICE = 2_000
"""Rows of a table that one transaction deletes at most."""
_PAGES = 2_000
"""Pages that one transaction gives back to the file system."""
_OVERHEAD_BYTES = 150
"""Of a row of PostgreSQL: headers and indexes, about."""


def cutoff(now: float, days: float, oldest: float) -> float:
    """The time before which rows are deleted in one look."""
    return min(now - days * _DAY, oldest + _STEP_SECONDS)


class Retention:
    """What is left to delete. Belongs to the thread that writes."""

    def __init__(self, days: float, size: int) -> None:
        """days: the greatest age of a row. size: of the store, in bytes."""
        self._days = days
        self._size = size
        self._cutoffs: dict[Table, float] = {}
        self._too_large = False

    def look(self, engine: Engine, now: float) -> bool:
        """Find what is to be deleted, unless another gateway did so in the last minute. False if it did."""
        with writing(engine) as connection:
            if not _claim(connection, now):
                return False
            oldest = {table: _oldest(connection, table) for table in STORED.values()}
            self._cutoffs = {
                table: cutoff(now, self._days, at) for table, at in oldest.items() if at is not None
            }
            self._too_large = used_bytes(connection) > self._size
        return True

    def step(self, engine: Engine) -> bool:
        """Delete some of it. True if more is left."""
        with writing(engine) as connection:
            left = [_delete_before(connection, table, at) for table, at in self._cutoffs.items()]
            if self._too_large:
                _delete_oldest(connection)
                self._too_large = used_bytes(connection) > self._size
        return shrink(engine) or any(left) or self._too_large


def used_bytes(connection: Connection) -> int:
    """The size of the store without what is free in it. On PostgreSQL an estimate."""
    if connection.dialect.name == "sqlite":
        pages, free, size = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)
    return sum(_estimate(connection, table) for table in STORED.values())


def shrink(engine: Engine) -> bool:
    """Give free pages of a SQLite file back to the file system. True if more are left."""
    if not is_sqlite(engine):
        return False
    with writing(engine) as connection:
        connection.exec_driver_sql(f"PRAGMA incremental_vacuum({_PAGES})").all()
        return bool(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())


def _claim(connection: Connection, now: float) -> bool:
    """Whether this gateway is to look. A time in the future is that of a clock that was wrong."""
    row = {"name": "retention", "at": now}
    insert: Any = sqlite_insert if connection.dialect.name == "sqlite" else postgres_insert
    if connection.execute(insert(chores).values(row).on_conflict_do_nothing()).rowcount:
        return True
    due = (chores.c.at <= now - LOOK_SECONDS) | (chores.c.at > now + LOOK_SECONDS)
    claim = update(chores).where(chores.c.name == "retention", due).values(at=now)
    return bool(connection.execute(claim).rowcount)


def _oldest(connection: Connection, table: Table) -> float | None:
    found: float | None = connection.scalar(select(func.min(table.c.at)))
    return found


def _delete_before(connection: Connection, table: Table, before: float) -> bool:
    """Delete the oldest rows before a time. True if there may be more."""
    return _delete_first(connection, table, table.c.at < before) == _SLICE


def _delete_oldest(connection: Connection) -> None:
    """Delete the oldest rows, of all tables up to the same time."""
    reached = [at for table in STORED.values() if (at := _reached(connection, table)) is not None]
    last = min(reached, default=None)
    if last is not None:
        for table in STORED.values():
            _delete_first(connection, table, table.c.at <= last)


def _reached(connection: Connection, table: Table) -> float | None:
    """The time of the last row of a slice from the oldest on."""
    slice_end = select(table.c.at).order_by(table.c.at).limit(1).offset(_SLICE // 2)
    newest = select(func.max(table.c.at))
    found: float | None = connection.scalar(slice_end)
    if found is None:
        found = connection.scalar(newest)
    return found


def _delete_first(connection: Connection, table: Table, which: ColumnElement[bool]) -> int:
    keys = list(table.primary_key)
    first = select(*keys).where(which).order_by(table.c.at).limit(_SLICE)
    identity = keys[0] if len(keys) == 1 else tuple_(*keys)
    return connection.execute(delete(table).where(identity.in_(first))).rowcount


def _estimate(connection: Connection, table: Table) -> int:
    """Bytes of the rows of a table of PostgreSQL, whose files do not shrink when rows are deleted."""
    live = connection.scalar(
        text("SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = CAST(:name AS regclass)"),
        {"name": table.name},
    )
    sample = text(
        f"SELECT avg(pg_column_size(t.*)) FROM (SELECT * FROM {table.name} ORDER BY at DESC LIMIT 100) AS t"  # noqa: S608 - ours
    )
    return round((live or 0) * (float(connection.scalar(sample) or 0) + _OVERHEAD_BYTES))
