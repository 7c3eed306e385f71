"""Redis over TLS: it must be trusted, keeps idle connections, and is found again after it hung."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.store.commands import ReserveCommand
from gateway.store.connection import StoreUnavailable
from gateway.store.store import Store
from tests.budget.stores import WINDOW
from tests.redis import (
    PATIENT,
    RealRedis,
    binaries,
    real_redis,
    reserved,
    running_store,
    until_down,
    until_up,
    use,
)

COMMAND = ReserveCommand((WINDOW,), (0,), ((100,),), minimum=100)


def speaks_tls(path: str) -> bool:
    """Whether a server was built with TLS: then it complains about the option's value, not its name."""
    said = subprocess.run([path, "--tls-replication", "?"], check=False, capture_output=True)
    return b"must be 'yes' or 'no'" in said.stdout + said.stderr


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, with its key in the same file."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=redis -addext"
    command = ["openssl", *words.split(), "subjectAltName=IP:127.0.0.1", "-keyout", file, "-out", file]
    subprocess.run(command, check=True, capture_output=True)
    return file


@pytest.fixture
def server(certificate: Path, free_port: int) -> Iterator[RealRedis]:
    path = next((path for path in binaries().values() if speaks_tls(path)), None)
    if path is None:
        pytest.skip("no Redis server here was built with TLS")
    tls = {"tls_port": str(free_port), "tls_auth_clients": "no"}
    files = dict.fromkeys(("tls_cert_file", "tls_key_file"), str(certificate))
    with real_redis(path, **tls, **files) as running:
        yield running


@contextlib.asynccontextmanager
async def connected(server: RealRedis, certificate: Path, timeout: float) -> AsyncIterator[Store]:
    url = f"rediss://127.0.0.1:{server.options['tls_port']}?ssl_ca_certs={certificate}"
    async with running_store(url, lease=60, timeout=timeout) as running:
        await until_up(running)
        yield running


def connections(server: RealRedis) -> int:
    """Connections that the server has accepted so far."""
    return int(server.ask("INFO", "stats")["total_connections_received"])


async def test_it_is_kept_while_idle(server: RealRedis, certificate: Path) -> None:
    """The same connection is used again after it was idle for several heartbeats."""
    async with connected(server, certificate, PATIENT) as store:
        settled, _ = await reserved(store, COMMAND)
        running, _ = await reserved(store, COMMAND)
        store.journal.settle(settled, COMMAND.windows, [(40, 0)])
        assert await use(store, WINDOW) == (40, 100)
        before = connections(server)
        await asyncio.sleep(1)  # several heartbeats
        assert store.up
        store.journal.settle(running, COMMAND.windows, [(30, 0)])

        assert await use(store, WINDOW) == (70, 0)
        assert connections(server) == before + 1  # the one that reads this number


async def test_it_hangs(server: RealRedis, certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hung server cannot say goodbye in TLS: its connections are dropped, and new ones are made later."""
    async with connected(server, certificate, 0.25) as store:
        settled, _ = await reserved(store, COMMAND)
        while int(server.ask("INFO", "clients")["connected_clients"]) < 4:  # all but this one are idle
            await asyncio.gather(*(store.status([WINDOW]) for _ in range(8)), return_exceptions=True)
        server.send(signal.SIGSTOP)
        await until_down(store, COMMAND)
        store.journal.settle(settled, COMMAND.windows, [(40, 0)])
        await asyncio.sleep(1)  # several attempts to reach it
        assert not store.up
        server.send(signal.SIGCONT)
        await until_up(store)

        assert await use(store, WINDOW) == (40, 0)
        assert [record for record in caplog.records if record.exc_info] == []


async def test_it_is_not_trusted(server: RealRedis) -> None:
    """Nothing is sent to a server whose certificate is not trusted."""
    async with running_store(f"rediss://127.0.0.1:{server.options['tls_port']}") as store:
        assert not store.up
        with pytest.raises(StoreUnavailable):
            await store.reserve(COMMAND)
