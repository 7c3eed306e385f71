"""Rows, as a driver gives them, as the bytes of an export. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from sqlalchemy import Boolean, Double, Integer, LargeBinary, Table

from gateway.evidence.schema import decisions

if TYPE_CHECKING:
    import pyarrow as pa

ExportFormat: TypeAlias = Literal["lines", "arrow"]
Encode: TypeAlias = Callable[[Sequence[Sequence[Any]]], bytes]
"""Makes bytes of some rows of a table, each with all columns."""

_JSON_COLUMNS = {decisions.c.rungs}
"""Bytes that are JSON. Other bytes are written in Base64."""

_TRUTH = {None: None, False: False, True: True}
"""SQLite gives 0 and 1, which are the same keys."""


def encoder_of(table: Table, form: ExportFormat) -> Encode:
    """Raises: ModuleNotFoundError, without pyarrow."""
    return _lines_of(table) if form == "lines" else _batches_of(table)


def _lines_of(table: Table) -> Encode:
    """One JSON object per line, with the table's name."""
    fields = ("table", *map(str, table.columns.keys()))
    kind = msgspec.defstruct("Line", [(field, Any) for field in fields], gc=False)
    encode_lines = msgspec.json.Encoder().encode_lines
    name = str(table.name)
    raw = [at for at, column in enumerate(table.columns) if column in _JSON_COLUMNS]
    truths = _truths(table)

    def encode(rows: Sequence[Sequence[Any]]) -> bytes:
        lines = []
        for row in rows:
            values = list(row)
            for at in raw:
                values[at] = msgspec.Raw(values[at] or b"null")
            for at in truths:
                values[at] = _TRUTH[values[at]]
            lines.append(kind(name, *values))
        return encode_lines(lines)

    return encode


def _batches_of(table: Table) -> Encode:
    """A record batch of Arrow, without its schema."""
    import pyarrow as pa  # noqa: PLC0415 - an optional extra

    schema = arrow_schema(table)
    truths = set(_truths(table))

    def encode(rows: Sequence[Sequence[Any]]) -> bytes:
        columns = [
            pa.array([_TRUTH[value] for value in values] if at in truths else values, schema.field(at).type)
            for at, values in enumerate(zip(*rows, strict=True))
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema).serialize().to_pybytes()  # type: ignore[no-any-return]

    return encode


def arrow_schema(table: Table) -> pa.Schema:
    """The columns of a table as Parquet has them. Raises: ModuleNotFoundError, without pyarrow."""
    import pyarrow as pa  # noqa: PLC0415

    kinds = {Boolean: pa.bool_(), Double: pa.float64(), Integer: pa.int64(), LargeBinary: pa.binary()}
    return pa.schema(
        pa.field(column.name, kinds.get(type(column.type), pa.string()), nullable=bool(column.nullable))
        for column in table.columns
    )


def _truths(table: Table) -> list[int]:
    return [at for at, column in enumerate(table.columns) if isinstance(column.type, Boolean)]
