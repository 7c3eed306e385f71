"""Files of data: unzipped, read from Parquet, and replaced as a whole."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any


class FileError(ValueError):
    """The content cannot be read. The message does not name the file."""


def gunzipped(content: bytes) -> bytes:
    """The content without its compression, if it is in gzip. Raises: FileError."""
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise FileError(f"damaged gzip data: {error}") from None


def parquet_records(content: bytes) -> list[Any]:
    """The rows of a Parquet file. Raises: FileError, also without pyarrow."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise FileError("reading Parquet needs: pip install '.[parquet]' in the checkout") from None
    try:
        records: list[Any] = parquet.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise FileError(str(error)) from None
    return records


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader has the old one or the new one, never a part. mode: its permissions."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
