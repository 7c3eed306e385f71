"""Deletes evidence on demand, with all that hangs on it, so that it is gone from the file as well."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, delete, select, true, tuple_

from gateway.evidence.database import explained, is_sqlite, writing
from gateway.evidence.retention import shrink_file
from gateway.evidence.rows import stored_names
from gateway.evidence.schema import (
    STORED,
    candidate_decisions,
    decisions,
    feedback,
    measurements,
    shadow_pairs,
)

_SLICE = 1_000
_PATIENCE = 20.0
"""Seconds to wait for a gateway that reads or writes, before the log of SQLite is emptied."""


def delete_key(engine: Engine, secret: bytes, name: str) -> Counter[str]:
    """Delete what a key asked and said. name: of the key, plain or as it is stored.

    Returns: the number of deleted rows, by table. Raises: EvidenceUnavailable.
    """
    names = stored_names(secret, name)
    found = _delete_decisions(engine, decisions.c.key.in_(names))
    return found + _delete_rows(engine, feedback, feedback.c.key.in_(names))


def delete_conversation(engine: Engine, secret: bytes, name: str) -> Counter[str]:
    """Delete the decisions of a conversation. name: plain or as it is stored.

    Returns: the number of deleted rows, by table. Raises: EvidenceUnavailable.
    """
    return _delete_decisions(engine, decisions.c.conversation.in_(stored_names(secret, name)))


def delete_before(engine: Engine, before: float) -> Counter[str]:
    """Delete what is older than this time.

    Returns: the number of deleted rows, by table. Raises: EvidenceUnavailable.
    """
    found = _delete_decisions(engine, decisions.c.at < before)
    for table in (feedback, shadow_pairs, measurements, candidate_decisions):
        found += _delete_rows(engine, table, table.c.at < before)
    return found


def delete_everything(engine: Engine) -> Counter[str]:
    """Delete all rows, but not the key of the pseudonyms: running gateways use it.

    Returns: the number of deleted rows, by table. Raises: EvidenceUnavailable.
    """
    found: Counter[str] = Counter()
    for table in STORED.values():
        found += _delete_rows(engine, table, true())
    return found


def erase(engine: Engine) -> bool:
    """Take what was deleted out of the files. False if a reader or writer kept SQLite's log in use.

    On PostgreSQL, copies in its own log and in backups stay until they are recycled.
    Raises: EvidenceUnavailable.
    """
    with explained():
        if not is_sqlite(engine):
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for table in STORED.values():
                    connection.exec_driver_sql(f"VACUUM {table.name}")
            return True
        while shrink_file(engine):
            continue
        return _empty_log(engine)


def _empty_log(engine: Engine) -> bool:
    end = time.monotonic() + _PATIENCE
    while True:
        raw = engine.raw_connection()
        try:
            busy = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            raw.close()
        if not busy or time.monotonic() > end:
            return not busy
        time.sleep(0.1)


def _delete_decisions(engine: Engine, which: ColumnElement[bool]) -> Counter[str]:
    """The decisions, and all that hangs on them."""
    found: Counter[str] = Counter()
    while True:
        with explained(), writing(engine) as connection:
            ids = list(connection.scalars(select(decisions.c.id).where(which).limit(_SLICE)))
            for table in (feedback, shadow_pairs, candidate_decisions):
                found[table.name] += _delete(connection, table, table.c.decision.in_(ids))
            found[decisions.name] += _delete(connection, decisions, decisions.c.id.in_(ids))
        if len(ids) < _SLICE:
            return found


def _delete_rows(engine: Engine, table: Table, which: ColumnElement[bool]) -> Counter[str]:
    found: Counter[str] = Counter()
    keys: Sequence[ColumnElement[Any]] = list(table.primary_key)
    identity = keys[0] if len(keys) == 1 else tuple_(*keys)
    some = select(*keys).where(which).limit(_SLICE)
    while True:
        with explained(), writing(engine) as connection:
            deleted = _delete(connection, table, identity.in_(some))
        found[table.name] += deleted
        if deleted < _SLICE:
            return found


def _delete(connection: Connection, table: Table, which: ColumnElement[bool]) -> int:
    return connection.execute(delete(table).where(which)).rowcount
