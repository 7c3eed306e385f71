"""Reads what happened beside the requests: promotions of heads, and alarms of drift.

This is the place for whatever keeps a log in the store. A table that is not there gives None.
"""

from __future__ import annotations

from sqlalchemy import Connection, column, inspect, select, table

from gateway.evidence.reporting.cells import Happening


def read_promotions(connection: Connection, since: float, until: float) -> list[Happening] | None:
    """The changes of the head that decides, oldest first."""
    names = ("at", "action", "head", "by", "why")
    return _log(connection, "promotions", names, since, until)


def read_alarms(connection: Connection, since: float, until: float) -> list[Happening] | None:
    """The alarms of drift, oldest first."""
    return _log(connection, "alarms", ("at", "model", "what"), since, until)


def _log(
    connection: Connection, name: str, names: tuple[str, ...], since: float, until: float
) -> list[Happening] | None:
    """The rows of a log, if the store has it."""
    found = inspect(connection)
    if not found.has_table(name) or not set(names) <= {each["name"] for each in found.get_columns(name)}:
        return None
    rows = table(name, *map(column, names))
    at = rows.c.at
    query = select(*rows.c).where(at >= since, at < until).order_by(at)
    return [
        Happening(first, ", ".join(str(each) for each in rest if each))
        for first, *rest in connection.execute(query)
    ]
