"""The store is made and migrated once, whoever opens it, and what cannot be used has a clear error."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from gateway.config.evidence import EvidenceSettings
from gateway.evidence import database, schema
from gateway.evidence.database import (
    EvidenceTooNew,
    EvidenceUnavailable,
    existing_store,
    open_store,
    secret_of,
)
from gateway.evidence.rows import pseudonym
from tests.evidence.made import counts, decision, store_rows, stored
from tests.evidence.processes import begin

MIGRATIONS = Path(database.__file__).with_name("migrations")
ADDED = """
import sqlalchemy as sa
from alembic import op
revision = "9000"
down_revision = "REVISION"
def upgrade():
    op.add_column("decisions", sa.Column("mood", sa.String(8)))
"""


def test_migrations_make_the_schema(settings: EvidenceSettings) -> None:
    """After all migrations, the tables are those of the schema, in types and indexes too."""
    engine = open_store(settings)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_newest_revision_is_named() -> None:
    """`REVISION` is the number of the last migration."""
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == schema.REVISION


def test_older_store_is_upgraded(
    settings: EvidenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version adds a column to a store with rows, and the rows stay."""
    store_rows(settings, map(decision, range(10)))
    newer = tmp_path / "migrations"
    (newer / "versions").mkdir(parents=True)
    for path in (MIGRATIONS / "env.py", *(MIGRATIONS / "versions").glob("*.py")):
        (newer / path.relative_to(MIGRATIONS)).write_text(path.read_text())
    (newer / "versions/newest.py").write_text(ADDED.replace("REVISION", schema.REVISION))
    monkeypatch.setattr(database, "_MIGRATIONS", newer)
    monkeypatch.setattr(database, "REVISION", "9000")

    engine = open_store(settings)

    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*), count(mood) FROM decisions")).one() == (10, 0)
    engine.dispose()


def test_newer_store_is_refused(settings: EvidenceSettings) -> None:
    """A store that a later version has changed is not touched, and the error says what to do."""
    engine = open_store(settings)
    with database.writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(EvidenceTooNew, match=r"revision 9999.*update this gateway"):
        open_store(settings)


def test_failed_migration_changes_nothing(
    settings: EvidenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a migration fails half-way, the next start finds the tables as they were."""
    broken = tmp_path / "migrations"
    (broken / "versions").mkdir(parents=True)
    (broken / "env.py").write_text((MIGRATIONS / "env.py").read_text())
    first = (MIGRATIONS / "versions/first.py").read_text()
    (broken / "versions/first.py").write_text(
        first.replace("    _chores()\n", "    raise OSError('killed')\n", 1)
    )
    with monkeypatch.context() as patch, pytest.raises(EvidenceUnavailable, match="killed"):
        patch.setattr(database, "_MIGRATIONS", broken)
        open_store(settings)

    assert counts(settings) == {}


def test_many_start_at_once(settings: EvidenceSettings) -> None:
    """One process makes the tables and the secret, and all use them."""
    processes = [begin("secret", settings) for _ in range(2)]
    with ThreadPoolExecutor(6) as pool:
        found = {secret.hex() for secret in pool.map(_secret, [settings] * 6)}
    found |= {process.communicate()[0].strip() for process in processes}

    assert len(found) == 1
    assert len(bytes.fromhex(found.pop())) == 32


def _secret(settings: EvidenceSettings) -> bytes:
    engine = open_store(settings)
    try:
        return secret_of(engine)
    finally:
        engine.dispose()


def test_secret_stays(settings: EvidenceSettings) -> None:
    """A name has the same pseudonym after a restart."""
    names = set()
    for _ in range(2):
        engine = open_store(settings)
        names.add(pseudonym(secret_of(engine), "alice"))
        engine.dispose()

    assert len(names) == 1


def test_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    """The file, its log and its folder are made, for the owner alone."""
    settings = EvidenceSettings(file=str(tmp_path / "new/folder/evidence.db"))
    engine = open_store(settings)
    secret_of(engine)

    files = list(Path(settings.file).parent.iterdir())

    assert {"evidence.db", "evidence.db-wal"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(Path(settings.file).parent.stat().st_mode) == 0o700
    engine.dispose()


def test_sqlite_is_set_up(sqlite: EvidenceSettings) -> None:
    """The file has a write-ahead log, shrinks, and forgets what is deleted."""
    engine = open_store(sqlite)
    with engine.connect() as connection:
        names = ("journal_mode", "auto_vacuum", "synchronous", "secure_delete", "busy_timeout")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
    engine.dispose()

    assert found == ["wal", 2, 1, 1, 5000]


def test_commands_make_no_store(sqlite: EvidenceSettings) -> None:
    """Who only reads makes no file."""
    with pytest.raises(EvidenceUnavailable, match="no store of evidence in"):
        existing_store(sqlite)

    assert not Path(sqlite.file).exists()


def test_other_files_are_refused(sqlite: EvidenceSettings) -> None:
    """A file that is no database stays as it is."""
    Path(sqlite.file).write_text("models: {}\n" * 1000)

    with pytest.raises(EvidenceUnavailable, match="not a database"):
        open_store(sqlite)

    assert Path(sqlite.file).read_text().startswith("models: {}")


def test_errors_name_no_password() -> None:
    """An unreachable PostgreSQL is an error with a reason, without the password."""
    pytest.importorskip("psycopg")
    with pytest.raises(EvidenceUnavailable) as failed:
        open_store(EvidenceSettings(url="postgres://me:hunter2@127.0.0.1:1/evidence"))

    assert "refused" in str(failed.value)
    assert "hunter2" not in str(failed.value)


def test_postgres_url_keeps_its_options(postgres: object, fresh_postgres: EvidenceSettings) -> None:
    """What the URL sets wins over our defaults; otherwise statements have a timeout."""
    assert fresh_postgres.url
    url = fresh_postgres.url.get_secret_value()
    engine = open_store(fresh_postgres)
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "10s"
    engine.dispose()

    engine = open_store(
        EvidenceSettings(url=f"{url}&application_name=mine&options=-c%20statement_timeout%3D1s")
    )
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "1s"
        assert connection.scalar(text("SHOW application_name")) == "mine"
    engine.dispose()
    assert stored(fresh_postgres, schema.decisions) == 0
