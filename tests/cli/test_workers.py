"""Several workers on one port are one gateway: metrics, console, reload, restart, drain, exit."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway.cli.worker_process import Stand, pause_before_restart, start_worker
from gateway.cli.workers import lock_file
from gateway.http.listening import reserve
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import ask, closed, connect, read_response
from tests.serving import Process, configuration, process

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "tiny:direct", "messages": [{"role": "user", "content": "hello"}]}
SECONDS = 40.0
DONE = 'thinkmeter_requests_total{model="tiny",route="/v1/chat/completions",status="200",tier="direct"}'


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with a new connection for each request, so that requests reach all workers."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


def settings_of(backend: Backend, **server: Any) -> dict[str, Any]:
    """A gateway of two workers."""
    return configuration(backend.url, server={"workers": 2, "access_log": True} | server)


def children(running: Process) -> list[int]:
    """The process ids of the workers."""
    pid = running.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def until(found: Any, seconds: float = SECONDS) -> Any:
    """Wait until a function, or one that is awaited, returns something true."""
    async with asyncio.timeout(seconds):
        while True:
            value = found()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)


async def all_serve(running: Process, times: int = 1) -> None:
    """Wait until all workers were ready so often."""
    await until(lambda: running.log.read_text().count("2 workers serve") >= times)


async def metrics(http: aiohttp.ClientSession, running: Process) -> dict[str, float]:
    """Every sample, by its name and labels."""
    answer = await ask(http, running.url, "/metrics", method="GET")
    lines = [line.rpartition(" ") for line in answer.body.decode().splitlines() if line[0] != "#"]
    assert len({name for name, _, _ in lines}) == len(lines)
    return {name: float(value) for name, _, value in lines}


async def chats(http: aiohttp.ClientSession, running: Process, count: int = 12) -> None:
    for answer in await asyncio.gather(*(ask(http, running.url, CHAT, BODY) for _ in range(count))):
        assert answer.status == 200


async def shown(http: aiohttp.ClientSession, running: Process) -> tuple[dict[str, Any], list[Any]]:
    """What a page of the console gets first: a snapshot, and all decisions."""
    async with http.get(running.url + "/console/events") as response:
        snapshot: dict[str, Any] = {}
        while True:
            line = await response.content.readline()
            if line.startswith(b"data: "):
                data = json.loads(line[6:])
                if isinstance(data, list):
                    return snapshot, data
                snapshot = data


async def test_life_of_two_workers(
    backend: Backend, tmp_path: Path, free_port: int, http: aiohttp.ClientSession
) -> None:
    """Both workers serve; whichever is asked shows the requests of both, also after one was killed."""
    async with process(settings_of(backend), tmp_path, port=free_port) as running:
        await all_serve(running)
        await chats(http, running)

        for _ in range(4):  # whichever worker answers
            before = await metrics(http, running)
            assert before[DONE] == 12
        snapshot, decisions = await shown(http, running)
        assert (snapshot["sums"]["requests"], len(decisions)) == (12, 12)

        killed = children(running)[0]
        os.kill(killed, signal.SIGKILL)
        await until(lambda: killed not in children(running))
        assert (await metrics(http, running))[DONE] == 12
        await all_serve(running, times=2)
        await chats(http, running)
        after = await metrics(http, running)
        assert after[DONE] == 24
        assert all(
            after[name] >= value for name, value in before.items() if name.endswith(("_total", "_count"))
        )
        assert f"ended with status -{int(signal.SIGKILL)}" in running.log.read_text()

        running.process.terminate()
        async with asyncio.timeout(SECONDS):
            assert await running.process.wait() == -signal.SIGTERM
    lines = [json.loads(line) for line in running.access_log.read_text().splitlines()]
    assert len([line for line in lines if line["route"] == CHAT]) == 24


async def test_budget_of_two_workers(backend: Backend, free_port: int, http: aiohttp.ClientSession) -> None:
    """All workers spend from one budget, in one embedded Redis, started once and stopped at the end."""
    with tempfile.TemporaryDirectory() as name:  # the path of a socket must be short
        folder = Path(name)
        day = {"name": "day", "window": "24h", "tokens": 1_000_000}
        settings = settings_of(backend) | {"budgets": [day], "redis": {"directory": str(folder / "r")}}
        async with process(settings, folder, port=free_port) as running:
            await all_serve(running)
            await chats(http, running)

            async def settled() -> bool:
                found = await metrics(http, running)
                tokens = {name: value for name, value in found.items() if 'state="settled"' in name}
                assert len(tokens) == 1, found
                return list(tokens.values()) == [12 * 32]

            await until(settled)
            running.process.terminate()
            async with asyncio.timeout(SECONDS):
                await running.process.wait()
        log = running.log.read_text()
        assert log.count("embedded Redis started") == log.count("embedded Redis stopped") == 1


async def test_evidence_of_two_workers(
    backend: Backend, tmp_path: Path, free_port: int, http: aiohttp.ClientSession
) -> None:
    """Each worker writes to the same SQLite file, and all decisions are in it when they have ended."""
    file = tmp_path / "evidence.db"
    settings = settings_of(backend) | {"evidence": {"file": str(file)}}
    async with process(settings, tmp_path, port=free_port) as running:
        await all_serve(running)
        for _ in range(4):
            await chats(http, running, 25)
        running.process.terminate()
        async with asyncio.timeout(SECONDS):
            await running.process.wait()
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM decisions").fetchone() == (
            100,
            100,
        )
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_reload_reaches_all_or_none(
    backend: Backend, tmp_path: Path, free_port: int, http: aiohttp.ClientSession
) -> None:
    """A good file is taken by all workers, a bad one by none, and each counts once."""
    settings = settings_of(backend)
    async with process(settings, tmp_path, port=free_port) as running:
        await all_serve(running)
        file = tmp_path / "gateway.yaml"
        names = {"tiny", "second"}

        async def listed() -> list[set[str]]:
            """The models that many answers name: enough to reach both workers."""
            answers = [await ask(http, running.url, "/v1/models", method="GET") for _ in range(16)]
            return [{card["id"].partition(":")[0] for card in answer.json["data"]} for answer in answers]

        file.write_text("models: {}\n")
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: "configuration refused" in running.log.read_text())
        assert set(map(frozenset, await listed())) == {frozenset({"tiny"})}

        models = settings["models"] | {"second": settings["models"]["tiny"]}
        file.write_text(yaml.safe_dump(settings | {"models": models}))
        running.process.send_signal(signal.SIGHUP)
        await until(lambda: "configuration reloaded: models (+second)" in running.log.read_text())

        async def taken() -> bool:
            return all(found == names for found in await listed())

        await until(taken)
        found = await metrics(http, running)
        assert found['thinkmeter_config_reloads_total{result="taken"}'] == 1
        assert found['thinkmeter_config_reloads_total{result="refused"}'] == 1


async def test_drain_reaches_all(
    backend: Backend, tmp_path: Path, free_port: int, http: aiohttp.ClientSession
) -> None:
    """After SIGTERM every worker says that it drains, running streams end whole, then all processes end."""
    settings = settings_of(backend, drain_delay=60)
    async with process(settings, tmp_path, port=free_port) as running:
        await all_serve(running)
        workers = children(running)
        backend.script(Fault(pace_ms=40, tokens=20))
        async with http.post(running.url + CHAT, json=BODY | {"stream": True}) as response:
            received = await response.content.readany()
            running.process.terminate()

            async def draining() -> bool:
                answers = [await ask(http, running.url, "/readyz", method="GET") for _ in range(16)]
                return all(
                    (answer.status, answer.json) == (503, {"status": "draining"}) for answer in answers
                )

            await until(draining)
            running.process.terminate()
            received += await response.content.read()

        assert received.endswith(b"data: [DONE]\n\n")
        async with asyncio.timeout(SECONDS):
            assert await running.process.wait() == -signal.SIGTERM
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


async def test_workers_end_with_their_supervisor(backend: Backend, tmp_path: Path, free_port: int) -> None:
    """If the supervisor is killed, no worker is left over."""
    async with process(settings_of(backend), tmp_path, port=free_port) as running:
        await all_serve(running)
        async with connect(running.url) as (reader, writer):
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await read_response(reader)).status == 200
            workers = children(running)

            running.process.kill()

            assert await closed(reader, SECONDS) == b""
        await until(lambda: not any(_lives(worker) for worker in workers))


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for init to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("restarts", "seconds"), [(0, 0.1), (1, 0.2), (5, 3.2), (12, 30.0), (10_000, 30.0)])
def test_pause_before_restart(restarts: int, seconds: float) -> None:
    """A worker that keeps ending is restarted more and more rarely."""
    assert pause_before_restart(restarts) == pytest.approx(seconds)


async def test_worker_of_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker imports what its supervisor does, also where another package of that name lies."""
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    sockets = reserve("127.0.0.1", 0)
    with lock_file() as lock:
        worker = await start_worker(Stand("127.0.0.1", 1, sockets, lock.fileno()), b"no configuration")
        await worker.process.communicate(worker.config)
        worker.channel.close()
    sockets[0].close()

    assert worker.process.returncode == 1


def test_lock_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers share a lock also where no file can be written, as in a container with a read-only system."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    with lock_file() as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX, 1, 1)
