"""Statements that write many rows at once. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any

from sqlalchemy import Boolean, Double, Integer, LargeBinary, String, Table

from gateway.evidence.rows import Row
from gateway.evidence.schema import STORED

_SIZES = {"?": (128, 16, 1), "%s": (1,)}
"""Rows per execution, by placeholder. SQLite keeps the few statements prepared, and the interpreter is free
while one runs. psycopg sends many small executions together, and reads a long statement anew each time."""
_INTEGERS = 2**31


def upsert(table: Table, rows: int, mark: str) -> str:
    """A statement that writes rows; one with the same primary key is replaced.

    mark: the driver's placeholder, `?` or `%s`.
    """
    names = [f'"{column.name}"' for column in table.columns]
    keys = [f'"{column.name}"' for column in table.primary_key]
    row = f"({', '.join([mark] * len(names))})"
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - ours
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"
    )


_upsert = cache(upsert)


@cache
def _values(kind: type[Row]) -> Callable[[Row], tuple[Any, ...]]:
    return attrgetter(*STORED[kind].columns.keys())


@cache
def _identity(kind: type[Row]) -> Callable[[Row], Any]:
    return attrgetter(*(column.name for column in STORED[kind].primary_key))


def statements(rows: Iterable[Row], mark: str) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """Statements that write the rows, each with the values of its executions.

    Of rows with the same primary key the last counts.
    """
    kinds: dict[type[Row], dict[Any, Row]] = {}
    for row in rows:
        kind = type(row)
        kinds.setdefault(kind, {})[_identity(kind)(row)] = row
    return [
        (_upsert(STORED[kind], size, mark), values)
        for kind, newest in kinds.items()
        for size, values in _executions([_values(kind)(row) for row in newest.values()], _SIZES[mark])
    ]


def _executions(
    rows: list[tuple[Any, ...]], sizes: Iterable[int]
) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """Rows per execution, largest first, and the values of each execution."""
    at = 0
    for size in sizes:
        end = at + (len(rows) - at) // size * size
        if end > at:
            yield size, [tuple(chain.from_iterable(rows[i : i + size])) for i in range(at, end, size)]
        at = end


def fitted(row: Row) -> Row:
    """The row as every database takes it: texts cut to their columns and valid, and numbers in range."""
    table = STORED[type(row)]
    values = {column.name: _fit(getattr(row, column.name), column.type) for column in table.columns}
    return type(row)(**values)


def _fit(value: Any, kind: Any) -> Any:
    if isinstance(value, str) and isinstance(kind, String):
        valid = value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        return valid[: kind.length]
    if isinstance(kind, Boolean | LargeBinary | Double) or not isinstance(kind, Integer):
        return value
    return max(-_INTEGERS, min(_INTEGERS - 1, value)) if isinstance(value, int) else value
