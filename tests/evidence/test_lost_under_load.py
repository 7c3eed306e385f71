"""A store of evidence that is lost while requests come: all of them are served, and the log has one line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.evidence import writer as writer_module
from gateway.evidence.writer import EvidenceWriter
from tests.evidence.made import counts
from tests.evidence.postgres import RealPostgres
from tests.fakes.backend import Backend
from tests.serving import Running, configuration, serving

Act = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as in the product, only shorter."""
    for name, seconds in (("_GATHER_SECONDS", 0.01), ("_FIRST_PAUSE", 0.02), ("_LONGEST_PAUSE", 0.1)):
        monkeypatch.setattr(writer_module, name, seconds)


def writer_of(running: Running) -> EvidenceWriter:
    assert running.gateway.evidence
    return running.gateway.evidence.writer


async def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def under_load(running: Running, lose: Act, until: Callable[[], bool]) -> int:
    """Send requests, one after the other on each of four connections, and lose the store meanwhile.

    Returns the number of requests, which were all answered.
    """
    done, statuses = asyncio.Event(), []

    async def client() -> None:
        while not done.is_set():
            statuses.append((await running.chat()).status)

    clients = [asyncio.create_task(client()) for _ in range(4)]
    await eventually(lambda: writer_of(running).written["decisions"] > 0)
    await lose()
    await eventually(until)
    before = len(statuses)
    await eventually(lambda: len(statuses) > before + 20)  # none waits for the store
    done.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    return len(statuses)


def away(caplog: pytest.LogCaptureFixture) -> int:
    """How many lines of the log say that the store is away."""
    return sum("is away" in record.getMessage() for record in caplog.records)


async def test_file_deleted(backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "evidence.db"
    async with serving(configuration(backend.url, evidence={"file": str(file)})) as running:

        async def lose() -> None:
            for part in tmp_path.glob("evidence.db*"):
                part.unlink()

        await under_load(running, lose, lambda: away(caplog) > 0)
        await eventually(lambda: writer_of(running).failing is None and file.exists())
    assert away(caplog) == 1


async def test_disk_full(backend: Backend, small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rows over the bound are dropped and counted, and the others are written when there is room again."""
    ballast = small_disk / "ballast"
    evidence = {"file": str(small_disk / "evidence.db"), "queue": 100}
    async with serving(configuration(backend.url, evidence=evidence)) as running:
        writer = writer_of(running)

        async def lose() -> None:
            with contextlib.suppress(OSError):
                ballast.write_bytes(b"x" * 32_000_000)

        sent = await under_load(running, lose, lambda: writer.dropped["full"] > 0)
        ballast.unlink()
        await eventually(lambda: writer.written["decisions"] + writer.dropped["full"] == sent)
        assert writer.failing is None
    assert away(caplog) == 1


async def test_postgres_stopped(
    backend: Backend, postgres: RealPostgres, fresh_postgres: EvidenceSettings
) -> None:
    assert fresh_postgres.url
    evidence = {"url": fresh_postgres.url.get_secret_value()}
    async with serving(configuration(backend.url, evidence=evidence)) as running:

        async def lose() -> None:
            await asyncio.to_thread(postgres.stop)

        sent = await under_load(running, lose, lambda: writer_of(running).failing is not None)
        await asyncio.to_thread(postgres.start)
        writer = writer_of(running)
        await eventually(lambda: writer.failing is None and not writer.waiting)
    assert await asyncio.to_thread(counts, fresh_postgres) == {"decisions": sent}
