"""Real Redis servers for tests: the embedded binary, and whatever else is installed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import redis

from gateway.redis_link import Link
from gateway.redis_server import binary
from gateway.store import Store

FAKE_TIME = "{thinkmeter}:now"
FAKE_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{FAKE_TIME}')) end\n"
"""A clock for the scripts that a test sets, in milliseconds; everything else of them stays as shipped."""


def binaries() -> dict[str, str]:
    """The servers at hand by name: `embedded` and what is on the path."""
    found = {"embedded": binary()}
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            found[name] = path
    return found


class RealRedis:
    """One server on a Unix socket that a test may stop, kill, pause and start again."""

    def __init__(self, path: str, folder: Path, **options: str) -> None:
        self.path, self.folder, self.options = path, folder, options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/s"

    def client(self) -> Any:
        return redis.Redis.from_url(self.url, protocol=2)

    def start(self) -> None:
        options = {"port": "0", "save": "", "dir": str(self.folder), "unixsocket": f"{self.folder}/s"}
        words = [w for n, v in (options | self.options).items() for w in (f"--{n.replace('_', '-')}", v)]
        self.process = subprocess.Popen([self.path, *words], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 20
        with contextlib.closing(self.client()) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert time.monotonic() < end, "the server does not start"
                    time.sleep(0.01)

    def send(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def real_redis(path: str | None = None, **options: str) -> Iterator[RealRedis]:
    """A running server in a folder of its own, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="tm") as folder:
        server = RealRedis(path or binary(), Path(folder), **options)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)


def store_of(
    url: str, *, replica: str = "a", lease: float = 15, clock: str | None = None, **link: Any
) -> Store:
    """A store that is not started."""
    options = {"prefix": "thinkmeter", "timeout": 0.25} | link
    return Store(Link(url, clock=clock, **options), prefix="thinkmeter", lease=lease, replica=replica)


@contextlib.asynccontextmanager
async def running_store(url: str, **options: Any) -> AsyncIterator[Store]:
    """A store that is connected."""
    store = store_of(url, **options)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def delivered(store: Store, seconds: float = 10) -> None:
    """Wait until Redis has taken the whole journal."""
    async with asyncio.timeout(seconds):
        await store.journal.empty()
