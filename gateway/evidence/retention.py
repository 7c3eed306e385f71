"""Deletes rows that are too old, and the oldest ones when the store is too large, a few at a time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, delete, func, select, text, tuple_

from gateway.evidence.database import is_sqlite, writing
from gateway.evidence.schema import STORED

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

_CLAIM = text(
    "INSERT INTO chores (name, at) VALUES ('retention', :now) ON CONFLICT (name)"
    " DO UPDATE SET at = excluded.at"
    " WHERE chores.at <= excluded.at - :span OR chores.at > excluded.at + :span RETURNING name"
)


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
        self._surplus = 0.0
        """Bytes above the limit."""
        self._row_bytes = 0.0
        """Of a row on average."""

    def look(self, engine: Engine, now: float) -> bool:
        """Find what is to be deleted, unless another gateway did so in the last minute. False if it did."""
        with writing(engine) as connection:
            if not _claim(connection, now):
                return False
            oldest = {table: _oldest(connection, table) for table in STORED.values()}
            self._cutoffs = {
                table: cutoff(now, self._days, at) for table, at in oldest.items() if at is not None
            }
            used = used_bytes(connection)
            self._surplus = max(0, used - self._size)
            if self._surplus:
                rows = sum(_live_rows(connection, table) for table in STORED.values())
                self._row_bytes = used / max(1, rows)
        return True

    def step(self, engine: Engine) -> bool:
        """Delete some of it. True if more is left."""
        with writing(engine) as connection:
            gone = [_delete_first(connection, table, table.c.at < at) for table, at in self._cutoffs.items()]
            self._surplus -= sum(gone) * self._row_bytes
            if self._surplus > 0:
                deleted = _delete_oldest(connection)
                self._surplus = self._surplus - deleted * self._row_bytes if deleted else 0
        return shrink_file(engine) or _SLICE in gone or self._surplus > 0


def used_bytes(connection: Connection) -> int:
    """The size of the store without what is free in it. On PostgreSQL an estimate."""
    if connection.dialect.name == "sqlite":
        pages, free, size = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)
    return sum(_estimate(connection, table) for table in STORED.values())


def shrink_file(engine: Engine) -> bool:
    """Give free pages of a SQLite file back to the file system. True if more are left."""
    if not is_sqlite(engine):
        return False
    raw = engine.raw_connection()
    try:
        cursor: Any = raw.cursor()
        cursor.executescript(f"PRAGMA incremental_vacuum({_PAGES})")  # `execute` would give back one page
        return bool(cursor.execute("PRAGMA freelist_count").fetchone()[0])
    finally:
        raw.close()


def _claim(connection: Connection, now: float) -> bool:
    """Whether this gateway is to look. A time in the future is that of a clock that was wrong."""
    return bool(connection.execute(_CLAIM, {"now": now, "span": LOOK_SECONDS}).all())


def _oldest(connection: Connection, table: Table) -> float | None:
    found: float | None = connection.scalar(select(func.min(table.c.at)))
    return found


def _delete_oldest(connection: Connection) -> int:
    """Delete the oldest rows, of all tables up to the same time. Returns their number."""
    reached = [at for table in STORED.values() if (at := _reached(connection, table)) is not None]
    if not reached:
        return 0
    return sum(_delete_first(connection, table, table.c.at <= min(reached)) for table in STORED.values())


def _reached(connection: Connection, table: Table) -> float | None:
    """How far from the oldest row on to delete: half a slice, or a tenth of a table with fewer rows."""
    times = select(table.c.at).order_by(table.c.at).limit(1)
    found: float | None = connection.scalar(times.offset(_SLICE // 2))
    if found is None:
        rows = connection.scalar(select(func.count()).select_from(table)) or 0
        found = connection.scalar(times.offset(rows // 10))
    return found


def _delete_first(connection: Connection, table: Table, which: ColumnElement[bool]) -> int:
    keys = list(table.primary_key)
    first = select(*keys).where(which).order_by(table.c.at).limit(_SLICE)
    identity = keys[0] if len(keys) == 1 else tuple_(*keys)
    return connection.execute(delete(table).where(identity.in_(first))).rowcount


def _estimate(connection: Connection, table: Table) -> int:
    """Bytes of the rows of a table of PostgreSQL, whose files do not shrink when rows are deleted."""
    sample = text(
        f"SELECT avg(pg_column_size(t.*)) FROM (SELECT * FROM {table.name} ORDER BY at DESC LIMIT 100) AS t"  # noqa: S608 - ours
    )
    row = float(connection.scalar(sample) or 0) + _OVERHEAD_BYTES
    return round(_live_rows(connection, table) * row)


def _live_rows(connection: Connection, table: Table) -> int:
    """PostgreSQL's own count may be some seconds old, so that it is read once per look."""
    if connection.dialect.name == "sqlite":
        return connection.scalar(select(func.count()).select_from(table)) or 0
    count = text("SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = CAST(:name AS regclass)")
    return connection.scalar(count, {"name": table.name}) or 0
