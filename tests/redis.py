"""Real Redis servers for tests: the embedded binary, and the Redis and Valkey servers on the path."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import redis

from gateway.store.commands import ReserveCommand, ReserveReply, Window
from gateway.store.connection import RedisConnection, StoreUnavailable
from gateway.store.embedded import binary
from gateway.store.store import Store
from tests.serving import Running

FAKE_TIME = "{thinkmeter}:now"
FAKE_CLOCK = f"local function clock() return tonumber(redis.call('GET', '{FAKE_TIME}')) end\n"
"""Replaces the clock of the Lua scripts by a time that the test sets, in milliseconds."""


NAMED = "THINKMETER_REDIS_BINARIES"
"""Environment variable: paths of the servers to test, separated by colons, instead of the installed ones."""


@cache
def binaries() -> dict[str, str]:
    """
    The servers to test, by name and version: those that the environment names, or the installed ones.

    Tests that need only one server use the first.
    """
    installed = [binary(), shutil.which("redis-server"), shutil.which("valkey-server")]
    paths = os.environ[NAMED].split(":") if os.environ.get(NAMED) else [path for path in installed if path]
    servers: dict[str, str] = {}
    for path in paths:
        servers.setdefault(_version(path), path)
    return servers


def _version(path: str) -> str:
    """Name and version, such as `redis-6.2.14` or `valkey-8.1.1`."""
    text = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
    match = re.match(r"(\w+) server v=([\d.]+)", text)
    assert match, text
    return f"{match[1].lower()}-{match[2]}"


PATIENT = 20.0
"""Seconds to wait for a reply in tests that are not about a failing Redis: the machine may be busy."""


class RealRedis:
    """A server on a Unix socket, and on a port if one is given. A test may stop, pause and restart it."""

    def __init__(self, path: str, folder: Path, **options: str) -> None:
        self.path, self.folder, self.options = path, folder, options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        port = self.options.get("port")
        return f"redis://127.0.0.1:{port}" if port else f"unix://{self.folder}/s"

    def client(self) -> Any:
        return redis.Redis.from_url(f"unix://{self.folder}/s", protocol=2)

    def ask(self, *words: Any) -> Any:
        """Send one command on a new connection."""
        with contextlib.closing(self.client()) as client:
            return client.execute_command(*words)

    def start(self) -> None:
        options = {"port": "0", "save": "", "dir": str(self.folder), "unixsocket": f"{self.folder}/s"}
        words = [
            w
            for n, v in (options | self.options).items()
            for w in (f"--{n.replace('_', '-')}", *v.split(" "))
        ]
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
    """A running server in a temporary folder, whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="tm") as folder:
        server = RealRedis(path or next(iter(binaries().values())), Path(folder), **options)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGKILL)


def store_of(
    url: str, *, gateway_id: str = "a", lease: float = 15, clock: str | None = None, **connection: Any
) -> Store:
    """A store that has not been started."""
    options = {"prefix": "thinkmeter", "timeout": 0.25} | connection
    return Store(
        RedisConnection(url, clock=clock, **options), prefix="thinkmeter", lease=lease, gateway_id=gateway_id
    )


@contextlib.asynccontextmanager
async def running_store(url: str, **options: Any) -> AsyncIterator[Store]:
    """A started store, stopped at the end."""
    store = store_of(url, **options)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def reserved(store: Store, command: ReserveCommand, seconds: float = 20) -> tuple[str, ReserveReply]:
    """Reserve, and try again as long as the machine is too busy for Redis to reply in time."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await store.reserve(command)
            except StoreUnavailable:
                await asyncio.sleep(0.02)


async def until_up(store: Store, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not store.up:
            await asyncio.sleep(0.01)


async def until_down(store: Store, command: ReserveCommand) -> None:
    """Reserve until the store takes Redis for down. What is granted until then is given back."""
    async with asyncio.timeout(20):
        while store.up:
            with contextlib.suppress(StoreUnavailable):
                id_, reply = await store.reserve(command)
                if reply.candidate:
                    store.journal.settle(id_, command.windows, [(0, 0)])


async def use(store: Store, window: Window) -> tuple[int, int]:
    """Settled and reserved tokens of a window, once the journal is delivered."""
    await delivered(store, 30)
    _, (state,) = await store.status([window])
    return state.settled, state.reserved


async def used(gateway: Running, budget: str = "b0", holder: str = "*") -> tuple[int, int]:
    """Settled and reserved tokens of a gateway's budget, once the journal is delivered."""
    limit = gateway.gateway.snapshot.budgets.limits[budget, holder]
    return await use(gateway.gateway.ledger.store, limit.window)


async def delivered(store: Store, seconds: float = 10) -> None:
    """Wait until the whole journal is delivered to Redis."""
    async with asyncio.timeout(seconds):
        await store.journal.empty()
