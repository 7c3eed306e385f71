"""Reads files of prompts: JSON Lines, JSON, CSV and Parquet. A file is read as a whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.evidence.measuring.prompts import MeasuredPrompt, PromptsError, merged_prompts, prompt_of

_Records = Iterator[tuple[str, Any]]
"""Each with its place, `file:line`."""
_LONGEST_CELL = 1 << 26  # characters


def read_prompts(path: Path) -> tuple[list[MeasuredPrompt], list[str]]:
    """The prompts of a file, each once, and what was merged.

    Raises: PromptsError, with the file and the line.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PromptsError(f"{path}: damaged gzip data: {error}") from None
    except OSError as error:
        raise PromptsError(f"{path}: {error.strerror or error}") from None
    prompts, notes = merged_prompts(prompt_of(record, place) for place, record in _records(path, content))
    if not prompts:
        raise PromptsError(f"{path}: no prompts")
    return prompts, notes


def _records(path: Path, content: bytes) -> _Records:
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind in {"jsonl", "ndjson"}:
        return _json_lines(path, content)
    if kind == "json":
        return _json_list(path, content)
    if kind in {"csv", "tsv"}:
        return _cells(path, content, "\t" if kind == "tsv" else ",")
    if kind == "parquet":
        return _parquet(path, content)
    raise PromptsError(f"{path}: the name must end in .jsonl, .json, .csv, .tsv or .parquet")


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PromptsError(f"{path}:{line}: not UTF-8: {error.reason}") from None


def _json_lines(path: Path, content: bytes) -> _Records:
    for number, line in enumerate(_text(path, content).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", _parsed(line, f"{path}:{number}")


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PromptsError(f"{place}: no JSON: {error}") from None


def _json_list(path: Path, content: bytes) -> _Records:
    text = _text(path, content)
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptsError(f"{path}:{error.lineno}: no JSON: {error.msg}") from None
    except RecursionError:
        raise PromptsError(f"{path}: nested too deeply") from None
    if not isinstance(records, list):
        raise PromptsError(f"{path}: a list of records is expected")
    yield from ((f"{path}: record {number}", record) for number, record in enumerate(records, 1))


def _cells(path: Path, content: bytes, delimiter: str) -> _Records:
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.reader(io.StringIO(_text(path, content), newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    line = 1
    try:
        for row in rows:
            if not names:
                names = [name.strip() for name in row]
            elif row:
                if len(row) != len(names):
                    raise PromptsError(f"{path}:{line}: {len(row)} cells, but {len(names)} columns")
                yield f"{path}:{line}", dict(zip(names, row, strict=True))
            line = rows.line_num + 1
    except csv.Error as error:
        raise PromptsError(f"{path}:{line}: {error}") from None


def _parquet(path: Path, content: bytes) -> _Records:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise PromptsError(
            f"{path}: reading Parquet needs: pip install '.[parquet]' in the checkout"
        ) from None
    try:
        records = parquet.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise PromptsError(f"{path}: {error}") from None
    yield from ((f"{path}:{number}", record) for number, record in enumerate(records, 1))
