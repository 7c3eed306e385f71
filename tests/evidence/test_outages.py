"""A store that is away, full, locked or deleted costs evidence, and nothing else."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.evidence import writer as writer_module
from gateway.evidence.database import open_store
from gateway.evidence.schema import decisions
from gateway.evidence.writer import EvidenceWriter
from tests.evidence.made import counts, decision, eventually, store_rows, stored
from tests.evidence.postgres import RealPostgres
from tests.evidence.processes import begin


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as in the product, only shorter."""
    monkeypatch.setattr(writer_module, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(writer_module, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(writer_module, "_LONGEST_PAUSE", 0.1)


@contextlib.contextmanager
def started(settings: EvidenceSettings) -> Iterator[EvidenceWriter]:
    writer = EvidenceWriter(settings)
    writer.start()
    try:
        yield writer
    finally:
        writer.close(30)


def goes_on(writer: EvidenceWriter, number: int) -> None:
    """The store works again, and what waited is written."""
    eventually(lambda: writer.failing is None and writer.written["decisions"] >= number)


def outages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Whether the store was `away` or `back`, in the order of the log."""
    texts = [record.getMessage() for record in caplog.records if record.name == "thinkmeter.evidence"]
    return [
        "away" if "is away" in text else "back" for text in texts if "is away" in text or "is back" in text
    ]


def test_postgres_crashes_and_returns(
    postgres: RealPostgres, fresh_postgres: EvidenceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows wait while the server is down, up to the limit, and each is written once."""
    with started(fresh_postgres.model_copy(update={"queue": 500})) as writer:
        writer.put(decision(0))
        goes_on(writer, 1)
        postgres.stop("immediate")
        try:
            taken = sum(writer.put(decision(number)) for number in range(1, 701))
            eventually(lambda: writer.failing)
            assert not writer.put(decision(9_999))
        finally:
            postgres.start()
        goes_on(writer, 1 + taken)

        assert taken < 700
        assert writer.dropped == {"full": 701 - taken}
    assert stored(fresh_postgres, decisions) == 1 + taken
    assert outages(caplog) == ["away", "back"]


def test_postgres_is_away_at_the_start(postgres: RealPostgres, fresh_postgres: EvidenceSettings) -> None:
    """The tables are made when the server comes."""
    postgres.stop("immediate")
    try:
        writer = EvidenceWriter(fresh_postgres)
        writer.start()
        writer.put(decision())
        eventually(lambda: writer.failing)
        assert not writer.ready(0)
    finally:
        postgres.start()
    goes_on(writer, 1)
    writer.close(30)
    assert writer.secret


def test_connections_are_ended_by_the_server(
    postgres: RealPostgres, fresh_postgres: EvidenceSettings
) -> None:
    """A connection that the server closes between two batches costs no row."""
    with started(fresh_postgres) as writer:
        writer.put(decision(0))
        goes_on(writer, 1)
        postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'thinkmeter'"
        )
        writer.put(decision(1))
        goes_on(writer, 2)

        assert not writer.dropped


def test_file_is_locked_by_another_process(
    sqlite: EvidenceSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock that is held for longer than the writer waits is an outage, which ends with it."""
    monkeypatch.setattr("gateway.evidence.database._BUSY_SECONDS", 0.05)
    with started(sqlite) as writer:
        writer.put(decision(0))
        goes_on(writer, 1)
        with contextlib.closing(sqlite3.connect(sqlite.file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            writer.put(decision(1))
            eventually(lambda: writer.failing)
            assert "locked" in str(writer.failing)
            other.execute("ROLLBACK")
        goes_on(writer, 2)
    assert outages(caplog) == ["away", "back"]


def test_file_is_deleted(sqlite: EvidenceSettings) -> None:
    """A new file is made. What waited is in it."""
    with started(sqlite) as writer:
        writer.put(decision(0))
        goes_on(writer, 1)
        old = writer.secret
        for path in Path(sqlite.file).parent.glob("evidence.db*"):
            path.unlink()
        writer.put(decision(1))
        goes_on(writer, 2)

        assert writer.secret != old
    assert counts(sqlite) == {"decisions": 1}


def test_file_is_damaged(sqlite: EvidenceSettings) -> None:
    """A file that is overwritten is an outage, and the writer still ends."""
    store_rows(sqlite, map(decision, range(1_000)))
    with Path(sqlite.file).open("r+b") as file:
        file.write(bytes(Path(sqlite.file).stat().st_size))
    with started(sqlite) as writer:
        writer.put(decision(1))
        eventually(lambda: writer.failing)

    assert writer.dropped == {"shutdown": 1}


def test_disk_is_full(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows wait, then are dropped. When there is room again, the writer goes on with an intact file."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 700_000)
    settings = EvidenceSettings(file=str(small_disk / "evidence.db"), queue=3_000)
    with started(settings) as writer:
        taken = sum(writer.put(decision(number)) for number in range(5_000))
        eventually(lambda: writer.failing and writer.waiting)
        assert "full" in str(writer.failing) or "I/O" in str(writer.failing)
        assert taken < 5_000
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
        goes_on(writer, taken)
    assert stored(settings, decisions) == taken
    assert_intact(settings)
    assert outages(caplog) == ["away", "back"]


def test_file_cannot_be_written(sqlite: EvidenceSettings) -> None:
    """A folder that is not there and cannot be made is an outage, not a failed start."""
    Path(sqlite.file).write_text("")
    with started(EvidenceSettings(file=f"{sqlite.file}/below/evidence.db")) as writer:
        assert writer.put(decision())
        eventually(lambda: writer.failing)


def test_killed_at_any_moment(sqlite: EvidenceSettings) -> None:
    """What a process has written is there after `kill -9`, and the file is intact."""
    kills = int(os.environ.get("KILLS", "2"))
    rng = random.Random(0)
    told = 0
    for _ in range(kills):
        with begin("write", sqlite) as process:
            assert process.stdout
            process.stdout.readline()  # it has begun to write
            time.sleep(rng.random() * 0.3)
            process.kill()
            lines = process.stdout.read().split()
        told += int(lines[-1]) if lines else 0
        assert_intact(sqlite)
        assert stored(sqlite, decisions) >= told
    assert told


def assert_intact(settings: EvidenceSettings) -> None:
    engine = open_store(settings)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalars().all() == ["ok"]
    engine.dispose()
