"""The process of the embedded Redis: there is never more than one in a directory.

The process inherits an open file with a lock. The kernel keeps the lock until every process that inherited it
has ended. So the lock says whether a server lives, even if it hangs or has not opened its socket yet.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_ANSWER_SECONDS = 2.0
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_LOADING = b"-LOADING"
_PAUSE = 0.02  # seconds between two looks at a server that starts or stops

_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "yes",
    "appendonly": "yes",
    "appendfsync": "no",  # `everysec` confirms a command at once, but delays its write while the disk is slow
    "save": "",
    "maxmemory-policy": "noeviction",
    "lazyfree-lazy-expire": "yes",  # a window with many reservations expires without blocking the others
}


class StartFailed(Exception):  # noqa: N818 - named after what happened
    """The server ended while it started, or does not respond."""


class ServerProcess:
    """The server process of one directory. Only one gateway at a time may start, stop or kill it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self._lock = directory / "server.lock"
        self._log = directory / "redis.log"

    def ask(self, command: bytes = b"PING\r\n") -> bytes | None:
        """The beginning of the reply; empty if none arrived in time, None if no server serves the socket.

        Any reply shows that the server is alive, an error as well: a server whose disk is full, or that loads
        its data, answers PING with one.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            try:
                connection.connect(str(self.socket))
                connection.sendall(command)
                return connection.recv(64) or None  # closed: the server is ending
            except (TimeoutError, BlockingIOError):  # or so many callers wait that the kernel takes no more
                return b""
            except OSError:
                return None

    def lives(self) -> bool:
        """Whether there is a server, whatever its state. Raises: OSError."""
        with self._lock.open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return self.ask() is not None

    def found(self) -> bool:
        """Whether there is a server. Waits a while for one that is just starting or ending."""
        end = time.monotonic() + _STOP_SECONDS
        while self.ask() is None:
            if not self.lives():
                return False
            if time.monotonic() > end:
                break
            time.sleep(_PAUSE)
        return True

    def start(self, binary: str) -> None:
        """Start a server, which must not live, and wait until it has loaded its data, for a limited time.

        Raises: StartFailed, OSError.
        """
        options = _OPTIONS | {
            "dir": str(self.directory),
            "unixsocket": str(self.socket),
            "pidfile": str(self.directory / "redis.pid"),
            "logfile": str(self._log),  # absolute: Redis does not look into `dir` for it
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with self._lock.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run(  # noqa: S603 - our own words
                [binary, *words],
                check=False,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(lock.fileno(),),
            )
        end = time.monotonic() + _START_SECONDS
        while not (reply := self.ask()) or reply.startswith(_LOADING):
            if not self.lives():  # also while it loads its data, which may be damaged
                raise StartFailed(f"the embedded Redis does not start: {self._last_line()}")
            if time.monotonic() > end:
                if reply:
                    return
                raise StartFailed(f"the embedded Redis does not respond: see {self._log}")
            time.sleep(_PAUSE)

    def wait_until_loaded(self) -> None:
        """Wait for a server that loads its data, for a limited time."""
        end = time.monotonic() + _START_SECONDS
        while (self.ask() or b"").startswith(_LOADING) and time.monotonic() < end:
            time.sleep(_PAUSE)

    def stop(self) -> None:
        """Stop the server, or kill it if it does not stop. It has written all that it confirmed."""
        self.ask(b"SHUTDOWN\r\n")
        if not self._ends_within(_STOP_SECONDS):
            self.kill()

    def kill(self) -> None:
        """Kill every server process that holds the lock of this directory."""
        for process in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._ends_within(_STOP_SECONDS)

    def _ends_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.lives():
            if time.monotonic() > end:
                return False
            time.sleep(_PAUSE)
        return True

    def _processes(self) -> list[int]:
        """Ids of the server processes that hold the lock; none where there is no /proc.

        A file with the id would not do: on a full disk it is empty, and later the id is another process's.
        """
        file, found = str(self._lock.resolve()), []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # the process has ended, or is another user's
                if not (folder / "comm").read_text().startswith(("redis", "valkey")):
                    continue
                if any(str(opened.readlink()) == file for opened in (folder / "fd").iterdir()):
                    found.append(int(folder.name))
        return found

    def _last_line(self) -> str:
        """The last line of the server's log, and where that is."""
        with suppress(OSError):
            lines = self._log.read_bytes()[-2_000:].decode(errors="replace").splitlines()
            return f"{lines[-1].strip() if lines else 'without a message'} ({self._log})"
        return f"see {self._log}"
