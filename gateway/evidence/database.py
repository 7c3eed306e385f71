"""Opens the evidence store: SQLite in a file, or PostgreSQL; makes and migrates its tables."""

from __future__ import annotations

import os
import secrets as randomness
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select, text
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.schema import REVISION, secrets

EvidenceStore: TypeAlias = Engine
"""An open store, as other packages name it."""

_MIGRATIONS = Path(__file__).with_name("migrations")
_BUSY_SECONDS = 5.0
_PATIENCE = 30.0
"""Seconds in which other processes that open the same SQLite file must have finished."""
_MIGRATION_LOCK = 0x74686D65  # PostgreSQL's advisory lock, which one of many gateways gets
_PRAGMAS = (
    ("auto_vacuum", "INCREMENTAL"),  # before the first table: the file can shrink
    ("synchronous", "NORMAL"),  # a power cut may lose the last batches, and corrupts nothing
    ("secure_delete", "ON"),  # what was deleted is overwritten
    ("journal_size_limit", str(16 * 2**20)),
)
_ENGINE: dict[str, Any] = {"pool_size": 2, "max_overflow": 3, "pool_timeout": 5, "hide_parameters": True}
_POSTGRES_OPTIONS = "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=60s"
_POSTGRES_CONNECT = {
    "connect_timeout": 5,
    "application_name": "thinkmeter",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
    "prepare_threshold": None,  # a pooler may pass each transaction to another server process
}


class EvidenceUnavailable(Exception):  # noqa: N818 - named after what happened
    """The store of evidence cannot be used; the text says why, without the password."""


class EvidenceTooNew(EvidenceUnavailable):
    """A newer version of the gateway has changed the store."""


def open_store(settings: EvidenceSettings) -> Engine:
    """The store, with the newest tables. It is made if it does not exist.

    Many processes may call this at once: one of them makes or migrates the tables, and the others wait.

    Raises: EvidenceUnavailable, EvidenceTooNew.
    """
    with explained():
        engine = _engine(settings)
        try:
            _prepare(engine)
        except BaseException:
            engine.dispose()
            raise
        return engine


def existing_store(settings: EvidenceSettings) -> Engine:
    """Like `open_store`, but a SQLite file is not made.

    Raises: EvidenceUnavailable, EvidenceTooNew.
    """
    if settings.url is None and not Path(settings.file).exists():
        raise EvidenceUnavailable(f"there is no store of evidence in {settings.file}")
    return open_store(settings)


@contextmanager
def store_as_it_is(settings: EvidenceSettings) -> Iterator[Engine | None]:
    """The store for reading only: nothing is made or migrated. None if there is none of this version.

    Raises: EvidenceUnavailable.
    """
    if settings.url is None and not Path(settings.file).exists():
        yield None
        return
    with explained():
        engine = _engine(settings)
        try:
            with engine.connect() as connection:
                usable = _revision(connection) == REVISION
            yield engine if usable else None
        finally:
            engine.dispose()


def settings_of(engine: Engine) -> EvidenceSettings:
    """What another process needs to open the same store."""
    if is_sqlite(engine):
        return EvidenceSettings(file=engine.url.database or "")
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return EvidenceSettings(url=SecretStr(url))


def is_sqlite(engine: Engine) -> bool:
    return isinstance(engine.dialect, SQLiteDialect)


def placeholder(engine: Engine) -> str:
    """What stands for a value in a statement of the driver."""
    return "?" if is_sqlite(engine) else "%s"


def file_of(settings: EvidenceSettings) -> tuple[int, int] | None:
    """Which file is at the path of the settings: device and inode; None for PostgreSQL or no file."""
    if settings.url is not None:
        return None
    with suppress(OSError):
        found = Path(settings.file).stat()
        return found.st_dev, found.st_ino
    return None


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes. On SQLite it takes the lock at once, so that it cannot fail half-way."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def secret_of(engine: Engine) -> bytes:
    """The key of the store's pseudonyms: 32 bytes, the same in all processes.

    Raises: EvidenceUnavailable.
    """
    query = select(secrets.c.value).where(secrets.c.name == "pseudonyms")
    with explained():
        with engine.connect() as connection:
            found = connection.scalar(query)
        if found is None:
            new = {"name": "pseudonyms", "value": randomness.token_bytes(32)}
            with writing(engine) as connection:
                statement = "INSERT INTO secrets (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING"
                connection.execute(text(statement), new)
                found = connection.execute(query).scalar_one()
    return bytes(found)


@contextmanager
def explained() -> Iterator[None]:
    """Turn every error of a database into EvidenceUnavailable."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise EvidenceUnavailable(f"PostgreSQL needs the `postgres` extra: {error}") from error
    except (SQLAlchemyError, OSError) as error:
        raise EvidenceUnavailable(cause_of(error)) from error


def cause_of(error: Exception) -> str:
    """The kind of error and its first line: others may quote the values of a row."""
    root = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    line = str(root).strip().partition("\n")[0]
    return f"{type(root).__name__}: {line}"


def _engine(settings: EvidenceSettings) -> Engine:
    if settings.url is not None:
        url = make_url(settings.url.get_secret_value()).set(drivername="postgresql+psycopg")
        options = {} if "options" in url.query else {"options": _POSTGRES_OPTIONS}
        connect = {**_POSTGRES_CONNECT, **options}
        given = {name: value for name, value in connect.items() if name not in url.query}
        return create_engine(url, connect_args=given, **_ENGINE)
    path = Path(settings.file).absolute()
    _make_file(path)
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(
        url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False}, **_ENGINE
    )
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _make_file(path: Path) -> None:
    """An empty file that only its owner may read; SQLite gives the files beside it the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


def _set_pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says: see _begin
    for name, value in _PRAGMAS:
        connection.execute(f"PRAGMA {name}={value}").close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare(engine: Engine) -> None:
    """Make or migrate the tables, unless they are as they should be."""
    if is_sqlite(engine):
        _keep_trying(lambda: _use_write_ahead_log(engine))
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision != REVISION:
        _keep_trying(lambda: _migrate(engine))


def _keep_trying(action: Any) -> None:
    """While another process has the lock of a SQLite file."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            action()
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _use_write_ahead_log(engine: Engine) -> None:
    with engine.connect() as connection:
        raw = connection.connection.cursor()
        if raw.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            raw.execute("PRAGMA journal_mode=WAL").fetchone()
        raw.close()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return version


def _migrate(engine: Engine) -> None:
    """All in one transaction, so that a process that dies leaves the tables as they were."""
    from alembic import command  # noqa: PLC0415 - takes long, and most starts need no migration
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with writing(engine) as connection:
        if not is_sqlite(engine):
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        revision = _revision(connection)
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if revision is not None and revision not in known:
            raise EvidenceTooNew(
                f"a newer version of Thinkmeter has changed the store of evidence (revision {revision},"
                f" and this version knows {REVISION}): update this gateway, or give it a store of its own"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
