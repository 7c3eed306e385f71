"""The pages of an export by other processes: the same as by one, in order, and their failures."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from pyarrow import parquet

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceStore, EvidenceUnavailable, open_store
from gateway.evidence.exporting import encoded
from gateway.evidence.exporting.encoded import encoded_pages
from gateway.evidence.exporting.files import write_jsonl, write_parquet
from gateway.evidence.exporting.selection import Selection
from gateway.evidence.schema import decisions
from tests.evidence.made import NOW, decision, store_rows

ALL = Selection(-math.inf, math.inf)
ROWS = 9_000


@pytest.fixture
def store(settings: EvidenceSettings) -> Iterator[EvidenceStore]:
    """Rows for several slices."""
    rows = (decision(i, features=b"\0\xff", stream=bool(i % 2), prompt=f"ö {i}") for i in range(ROWS))
    store_rows(settings, rows)
    engine = open_store(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Three processes read a store of any size. Returns those that were started."""
    monkeypatch.setattr(encoded, "_FEW", 100)
    monkeypatch.setattr(encoded, "_MOST_PROCESSES", 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    processes: list[subprocess.Popen[bytes]] = []

    class Counted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    return processes


def test_the_same_as_by_one_process(store: EvidenceStore, request: pytest.FixtureRequest) -> None:
    """Each byte of the lines, and each value of Parquet."""
    some = Selection(NOW + 10, NOW + 8_800)
    one = [io.BytesIO(), io.BytesIO()]
    assert [write_jsonl(store, decisions, some, one[0]), write_parquet(store, decisions, some, one[1])] == [
        8_790
    ] * 2

    processes = request.getfixturevalue("started")
    several = [io.BytesIO(), io.BytesIO()]
    assert write_jsonl(store, decisions, some, several[0]) == 8_790
    assert write_parquet(store, decisions, some, several[1]) == 8_790

    assert several[0].getvalue() == one[0].getvalue()
    assert parquet.read_table(several[1]).equals(parquet.read_table(one[1]))
    assert len(processes) == 6
    assert all(process.returncode is not None for process in processes)


def test_a_process_that_ends(sqlite: EvidenceSettings, started: list[subprocess.Popen[bytes]]) -> None:
    """The export fails, and does not leave rows out. No process stays."""
    store_rows(sqlite, map(decision, range(ROWS)))
    engine = open_store(sqlite)
    found = encoded_pages(engine, decisions, ALL, "lines")
    next(found)
    for process in started:
        os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(EvidenceUnavailable, match="ended"):
        list(found)
    engine.dispose()

    assert all(process.returncode is not None for process in started)


def test_a_store_that_a_process_cannot_use(
    sqlite: EvidenceSettings, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reason is told."""
    store_rows(sqlite, map(decision, range(ROWS)))
    engine = open_store(sqlite)
    elsewhere = EvidenceSettings(file=f"{sqlite.file}.moved")
    monkeypatch.setattr(encoded, "settings_of", lambda _: elsewhere)

    with pytest.raises(EvidenceUnavailable, match=r"no store of evidence in .*\.moved"):
        list(encoded_pages(engine, decisions, ALL, "lines"))
    engine.dispose()


def test_an_export_that_is_given_up(sqlite: EvidenceSettings, started: list[subprocess.Popen[bytes]]) -> None:
    """As after Ctrl-C or with a full disk: the processes end."""
    store_rows(sqlite, map(decision, range(ROWS)))
    engine = open_store(sqlite)
    found = encoded_pages(engine, decisions, ALL, "lines")
    next(found)
    found.close()  # type: ignore[attr-defined]
    engine.dispose()

    assert [process.returncode for process in started] == [-signal.SIGKILL] * 3


def test_one_core(
    sqlite: EvidenceSettings, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes would not help."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    store_rows(sqlite, map(decision, range(300)))
    engine = open_store(sqlite)

    assert sum(number for number, _ in encoded_pages(engine, decisions, ALL, "lines")) == 300
    engine.dispose()
    assert started == []
