"""Writes rows of the evidence store to a file: JSON Lines, or Parquet. Memory does not grow with the rows."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec
from sqlalchemy import (
    Boolean,
    Double,
    Engine,
    Integer,
    LargeBinary,
    Table,
)

from gateway.evidence.reading import Selection, pages
from gateway.evidence.schema import STORED, decisions

_JSON_COLUMNS = {decisions.c.rungs}
"""Bytes that are JSON. Other bytes are written in Base64."""


@contextmanager
def _without_collections() -> Iterator[None]:
    """Rows have no cycles, and searching them for some takes a quarter of the time of an export."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def table_named(name: str) -> Table:
    """Raises: KeyError."""
    return {table.name: table for table in STORED.values()}[name]


def table_names() -> list[str]:
    return [table.name for table in STORED.values()]


@_without_collections()
def write_jsonl(engine: Engine, table: Table, some: Selection, to: IO[bytes]) -> int:
    """One object per line, with the table's name. Returns the number of rows.

    Raises: EvidenceUnavailable.
    """
    fields = ("table", *map(str, table.columns.keys()))
    kind = msgspec.defstruct("Line", [(field, Any) for field in fields])
    encode = msgspec.json.Encoder().encode_lines
    name, raw = str(table.name), [at for at, column in enumerate(table.columns) if column in _JSON_COLUMNS]
    count = 0
    for page in pages(engine, table, some):
        lines = []
        for row in page:
            values = list(row)
            for at in raw:
                values[at] = msgspec.Raw(values[at] or b"null")
            lines.append(kind(name, *values))
        to.write(encode(lines))
        count += len(lines)
    return count


@_without_collections()
def write_parquet(engine: Engine, table: Table, some: Selection, to: IO[bytes]) -> int:
    """One row group per page. Returns the number of rows.

    Raises: EvidenceUnavailable; ModuleNotFoundError without pyarrow.
    """
    import pyarrow as pa  # noqa: PLC0415 - an optional extra
    from pyarrow import parquet  # noqa: PLC0415

    kinds = {Boolean: pa.bool_(), Double: pa.float64(), Integer: pa.int64(), LargeBinary: pa.binary()}
    schema = pa.schema(
        pa.field(column.name, kinds.get(type(column.type), pa.string()), nullable=bool(column.nullable))
        for column in table.columns
    )
    count = 0
    with parquet.ParquetWriter(to, schema, compression="zstd") as writer:
        for page in pages(engine, table, some):
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*page, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += len(page)
    return count
