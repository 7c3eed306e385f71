"""Real Redis servers for tests: the embedded binary, and whatever else is installed."""

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
"""A clock for the scripts that a test sets, in milliseconds; everything else of them stays as shipped."""


NAMED = "THINKMETER_REDIS_BINARIES"
"""Environment variable: the servers to test, as paths with colons between them, instead of those at hand."""


@cache
def binaries() -> dict[str, str]:
    """The servers to test by name and version, first the one for tests that need but one: those that are
    named, or the embedded one and what is on the path."""
    at_hand = [binary(), shutil.which("redis-server"), shutil.which("valkey-server")]
    paths = os.environ[NAMED].split(":") if os.environ.get(NAMED) else [path for path in at_hand if path]
    found: dict[str, str] = {}
    for path in paths:
        found.setdefault(_version(path), path)
    return found


def _version(path: str) -> str:
    """Such as `redis-6.2.14` or `valkey-8.1.1`."""
    text = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.match(r"(\w+) server v=([\d.]+)", text)
    assert found, text
    return f"{found[1].lower()}-{found[2]}"


PATIENT = 20.0
"""Seconds to wait for a reply where what is tested is not a Redis that fails: this machine may be busy."""


class RealRedis:
    """One server on a Unix socket, and a port if it is given one, that a test may stop, kill, pause and start
    again."""

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
        """One command on a connection of its own."""
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
    """A running server in a folder of its own, with a path short enough for a socket."""
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
    """A store that is not started."""
    options = {"prefix": "thinkmeter", "timeout": 0.25} | connection
    return Store(
        RedisConnection(url, clock=clock, **options), prefix="thinkmeter", lease=lease, gateway_id=gateway_id
    )


@contextlib.asynccontextmanager
async def running_store(url: str, **options: Any) -> AsyncIterator[Store]:
    """A store that is connected."""
    store = store_of(url, **options)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def reserved(store: Store, command: ReserveCommand, seconds: float = 20) -> tuple[str, ReserveReply]:
    """A reservation, asked again while this machine is too busy for Redis' deadlines."""
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
    """ReserveCommand until Redis counts as away; what is granted meanwhile is given back."""
    async with asyncio.timeout(20):
        while store.up:
            with contextlib.suppress(StoreUnavailable):
                id_, reply = await store.reserve(command)
                if reply.candidate:
                    store.journal.settle(id_, command.windows, [(0, 0)])


async def use(store: Store, window: Window) -> tuple[int, int]:
    """Settled and reserved tokens, once everything is delivered."""
    await delivered(store, 30)
    _, (found,) = await store.status([window])
    return found.settled, found.reserved


async def used(gateway: Running, budget: str = "b0", holder: str = "*") -> tuple[int, int]:
    """As `use`, of a budget of a gateway."""
    limit = gateway.gateway.snapshot.budgets.limits[budget, holder]
    return await use(gateway.gateway.ledger.store, limit.window)


async def delivered(store: Store, seconds: float = 10) -> None:
    """Wait until Redis has taken the whole journal."""
    async with asyncio.timeout(seconds):
        await store.journal.empty()
