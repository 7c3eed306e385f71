"""Writes rows of the evidence store to a file: JSON Lines, or Parquet. Memory does not grow with the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, TypeAlias

import msgspec
from sqlalchemy import Boolean, Double, Integer, LargeBinary, Table

from gateway.evidence.schema import STORED, decisions

Page: TypeAlias = list[tuple[Any, ...]]

_JSON_COLUMNS = {decisions.c.rungs}
"""Bytes that are JSON. Other bytes are written in Base64."""


def table_named(name: str) -> Table:
    """Raises: KeyError."""
    return {table.name: table for table in STORED.values()}[name]


def table_names() -> list[str]:
    return [table.name for table in STORED.values()]


def write_jsonl(table: Table, pages: Iterator[Page], to: IO[bytes]) -> int:
    """One object per line, with the table's name. Returns the number of rows."""
    encode = msgspec.json.Encoder().encode_lines
    name, names = str(table.name), ("table", *map(str, table.columns.keys()))
    raw = [at for at, column in enumerate(table.columns) if column in _JSON_COLUMNS]
    kind = msgspec.defstruct("Line", [(field, Any) for field in names])
    count = 0
    for page in pages:
        rows = _with_raw(page, raw) if raw else page
        to.write(encode([kind(name, *row) for row in rows]))
        count += len(page)
    return count


def _with_raw(page: Page, places: list[int]) -> Iterator[list[Any]]:
    for row in page:
        values = list(row)
        for at in places:
            values[at] = msgspec.Raw(values[at] or b"null")
        yield values


def write_parquet(table: Table, pages: Iterator[Page], to: IO[bytes]) -> int:
    """One row group per page. Returns the number of rows.

    Raises: ModuleNotFoundError without pyarrow.
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
        for page in pages:
            columns = [
                pa.array(values, field.type)
                for values, field in zip(zip(*page, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += len(page)
    return count
