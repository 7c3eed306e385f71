"""The embedded server when it hangs, refuses, cannot start or was killed: there are never two."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.store import embedded, server_process
from gateway.store.client import describe_trouble
from gateway.store.embedded import RedisServer, RedisServerStartError, Silence
from tests.budget.append_only import append_only_files
from tests.fakes.backend import Backend
from tests.redis import until_up
from tests.serving import configuration, serving


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a path short enough for a socket. Servers are given up sooner than in production."""
    monkeypatch.setattr(server_process, "_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(server_process, "_STOP_SECONDS", 0.5)
    with tempfile.TemporaryDirectory(prefix="tm") as name:
        yield Path(name) / "data"
        for pid in processes(Path(name) / "data"):
            os.kill(pid, signal.SIGKILL)


def processes(folder: Path) -> list[int]:
    """All server processes of a directory, as their command lines tell."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"unixsocket:{folder}/".encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[RedisServer]:
    running = RedisServer(folder)
    await running.ensure()
    yield running
    await running.leave()
    assert not processes(folder)


def ask(folder: Path, *words: Any) -> Any:
    with contextlib.closing(redis.Redis.from_url(f"unix://{folder}/redis.sock")) as client:
        return client.execute_command(*words)


async def test_hung_server_is_not_doubled(server: RedisServer, folder: Path) -> None:
    """While the server hangs, no gateway starts another, not even one that has just been started itself."""
    (pid,) = processes(folder)
    other = RedisServer(folder)
    os.kill(pid, signal.SIGSTOP)
    await asyncio.gather(*(gateway.revive() for gateway in (server, other, server)), other.ensure())
    assert processes(folder) == [pid]
    os.kill(pid, signal.SIGCONT)

    await server.revive()
    assert (processes(folder), server.silence.asked) == ([pid], 0)
    await other.leave()


async def test_server_hung_for_good_is_replaced(server: RedisServer, folder: Path) -> None:
    """A server that has not answered for long is killed, and its successor has what it had confirmed."""
    ask(folder, "SET", "kept", "yes")
    (pid,) = processes(folder)
    os.kill(pid, signal.SIGSTOP)
    server.silence = Silence(seconds=0, attempts=3)
    for _ in range(2):
        await server.revive()
        assert processes(folder) == [pid]
    await server.revive()

    (successor,) = processes(folder)
    assert successor != pid
    assert ask(folder, "GET", "kept") == b"yes"


async def test_hung_server_is_stopped_by_the_last_gateway(folder: Path) -> None:
    """The last gateway leaves no server behind that would wake up later."""
    server = RedisServer(folder)
    await server.ensure()
    os.kill(processes(folder)[0], signal.SIGSTOP)
    await server.leave()

    assert not processes(folder)


async def test_server_without_its_socket(server: RedisServer, folder: Path) -> None:
    """If something deletes the socket, the server is not doubled, and replaced after a while."""
    (pid,) = processes(folder)
    (folder / "redis.sock").unlink()
    server.silence = Silence(seconds=0, attempts=2)
    await server.revive()
    assert processes(folder) == [pid]
    await server.revive()

    assert len(processes(folder)) == 1
    assert ask(folder, "PING")


@pytest.mark.parametrize("reply", [b"-MISCONF x\r\n", b"-LOADING x\r\n", b"-NOAUTH x\r\n", b"-BUSY x\r\n"])
async def test_error_reply_is_a_sign_of_life(folder: Path, reply: bytes, monkeypatch: Any) -> None:
    """A server that answers with any error is neither started again nor counted as silent."""
    monkeypatch.setattr(server_process, "_START_SECONDS", 0.05)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(reply)
        writer.close()

    folder.mkdir()
    listener = await asyncio.start_unix_server(refuse, folder / "redis.sock")
    gateway = RedisServer(folder)
    await gateway.ensure()
    for _ in range(3):
        await gateway.revive()

    assert not processes(folder)
    assert gateway.silence.asked == 0
    listener.close()
    await listener.wait_closed()
    await gateway.leave()


async def test_left_over_files_of_a_killed_server(server: RedisServer, folder: Path) -> None:
    """A stale socket, and a file with the id of a process that is another's by now, do no harm."""
    (pid,) = processes(folder)
    os.kill(pid, signal.SIGKILL)
    (folder / "redis.pid").write_text(str(os.getpid()))
    await asyncio.gather(*(server.revive() for _ in range(4)))

    (successor,) = processes(folder)
    assert successor != pid
    assert ask(folder, "PING")


async def test_gateway_that_left_revives_nothing(folder: Path) -> None:
    """A probe that is still under way when the gateway leaves does not start the server again."""
    server = RedisServer(folder)
    await server.ensure()
    await server.leave()
    await server.revive()

    assert not processes(folder)


async def test_damaged_file(folder: Path) -> None:
    """A server that does not start is reported with its own words, and not tried again in a hurry."""
    server = RedisServer(folder)
    await server.ensure()
    ask(folder, "SET", "kept", "yes")
    await server.leave()
    (file,) = append_only_files(folder)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"*3", b"?3"))
    for _ in range(3):
        with pytest.raises(RedisServerStartError, match=r"does not start: .*redis\.log"):
            await server.ensure()
    assert (folder / "redis.log").read_text().count("Bad file format") == 1
    assert not processes(folder)

    file.write_bytes(whole[:-3])  # cut off by a full disk
    server._failed = None
    await server.revive()
    assert ask(folder, "PING")
    await server.leave()


def test_silence() -> None:
    """A server counts as hung only after both the time and the attempts."""
    stopped = Silence(seconds=30, attempts=10)
    assert [stopped.unanswered(now) for now in (0, 1_000, 2_000)] == [False] * 3
    asked = Silence(seconds=30, attempts=10)
    assert [asked.unanswered(now / 2) for now in range(61)].index(True) == 60
    asked.end()
    assert not asked.unanswered(100)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis.ResponseError("MISCONF Errors writing to the AOF file"), "refuses writes (MISCONF"),
        (redis.ReadOnlyError("a replica"), "refuses writes (ReadOnlyError"),
        (redis.exceptions.OutOfMemoryError("maxmemory"), "refuses writes (OutOfMemoryError"),
        (redis.BusyLoadingError("loading"), "refuses commands (BusyLoadingError"),
        (redis.AuthenticationError("who?"), "refuses commands (AuthenticationError"),
        (redis.ConnectionError("gone"), "is away (ConnectionError"),
        (TimeoutError("no reply in time"), "is away (TimeoutError"),
    ],
)
def test_trouble_in_words(error: Exception, said: str) -> None:
    """The log says whether Redis is away or answers with errors."""
    assert describe_trouble(error).startswith(said)


async def until_status(gateway: Any, status: int) -> None:
    async with asyncio.timeout(20):
        while (await gateway.chat("hello")).status != status:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("patient_redis")
async def test_refused_writes(backend: Backend, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While the server cannot write, budgets follow `when_redis_fails`; then it goes on with every token."""
    budgets = [{"name": "b0", "window": "10m", "tokens": 100_000, "when_redis_fails": "closed"}]
    settings = configuration(backend.url, redis={"directory": str(folder)}, price=0, budgets=budgets)
    async with serving(settings) as gateway:
        assert (await gateway.chat("hello")).status == 200
        (pid,) = processes(folder)
        (folder / "dump.rdb" / "in-the-way").mkdir(parents=True)  # no snapshot can be written any more
        ask(folder, "CONFIG", "SET", "save", "3600 1")
        ask(folder, "BGSAVE")
        await until_status(gateway, 503)
        for _ in range(10):
            assert (await gateway.chat("hello")).status == 503
        await asyncio.sleep(0.6)  # two probes
        assert processes(folder) == [pid]
        assert [text for text in caplog.messages if "Redis" in text and "refuses writes (" in text]
        assert not [text for text in caplog.messages if "is away" in text]
        ask(folder, "CONFIG", "SET", "save", "")
        await until_up(gateway.gateway.ledger.store)
        assert (await gateway.chat("hello")).status == 200
        assert processes(folder) == [pid]


@pytest.mark.usefixtures("patient_redis")
async def test_gateway_starts_beside_a_server_that_does_not(
    backend: Backend, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway serves by `when_redis_fails` while its server cannot start, and uses it once it can."""
    monkeypatch.setattr(embedded, "_RETRY_SECONDS", 0.1)
    server = RedisServer(folder)
    await server.ensure()
    ask(folder, "SET", "kept", "yes")
    await server.leave()
    (file,) = append_only_files(folder)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"*3", b"?3"))
    budgets = [{"name": "b0", "window": "10m", "tokens": 100_000, "when_redis_fails": "open"}]
    settings = configuration(backend.url, redis={"directory": str(folder)}, price=0, budgets=budgets)
    async with serving(settings) as gateway:
        assert (await gateway.chat("hello")).headers["x-thinkmeter-budget-fallback"] == "open"
        file.write_bytes(whole)
        await until_up(gateway.gateway.ledger.store)
        assert (await gateway.chat("hello")).headers["x-ratelimit-limit-tokens"] == "100000"
