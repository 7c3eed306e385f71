"""Writes rows of the evidence store to a file: JSON Lines, or Parquet. Memory does not grow with the rows."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from sqlalchemy import Engine, Table

from gateway.evidence.exporting.encoded import encoded_pages
from gateway.evidence.exporting.encoding import arrow_schema
from gateway.evidence.exporting.selection import Selection


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


@_without_collections()
def write_jsonl(engine: Engine, table: Table, some: Selection, to: IO[bytes]) -> int:
    """One object per line, with the table's name. Returns the number of rows.

    Raises: EvidenceUnavailable.
    """
    count = 0
    for number, data in encoded_pages(engine, table, some, "lines"):
        to.write(data)
        count += number
    return count


@_without_collections()
def write_parquet(engine: Engine, table: Table, some: Selection, to: IO[bytes]) -> int:
    """One row group per page. Returns the number of rows.

    Raises: EvidenceUnavailable; ModuleNotFoundError without pyarrow.
    """
    import pyarrow as pa  # noqa: PLC0415 - an optional extra
    from pyarrow import parquet  # noqa: PLC0415

    count, schema = 0, arrow_schema(table)
    with parquet.ParquetWriter(to, schema, compression="zstd") as writer:
        for number, data in encoded_pages(engine, table, some, "arrow"):
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), schema)
            writer.write_table(pa.Table.from_batches([batch], schema=schema))
            count += number
    return count
