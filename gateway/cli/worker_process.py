"""Starts the process of a worker, and asks it over its channel."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from dataclasses import dataclass, field

import msgspec

from gateway.cli.worker import Setup
from gateway.http.channel import ChannelError, WorkerChannel
from gateway.http.listening import another

_ASK_SECONDS = 2.0
"""How long a worker may take to answer, before what it said last counts."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where so many workers listen."""

    host: str
    port: int
    workers: int


@dataclass(frozen=True, slots=True)
class Stand:
    """What all workers get when they start."""

    host: str
    workers: int
    sockets: list[socket.socket]
    """Bound to the addresses to listen on."""
    lock: int
    """See `Setup`."""

    @property
    def port(self) -> int:
        return int(self.sockets[0].getsockname()[1])


@dataclass(eq=False, slots=True)
class Worker:
    """One process."""

    process: asyncio.subprocess.Process
    channel: WorkerChannel
    config: bytes
    """The configuration that it has, or that is on its way to it."""
    ready: bool = False
    metrics: bytes = b""
    """What it said last."""
    since: float = field(default_factory=time.monotonic)

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


def pause_before_restart(restarts: int) -> float:
    """Seconds to wait, after so many restarts of a worker in a row."""
    return float(min(_SHORTEST_PAUSE * 2 ** min(restarts, 20), _LONGEST_PAUSE))


def _code(path: list[str]) -> str:
    """What a worker runs. It imports from where its supervisor does, not from the folder it is started in."""
    return f"import sys; sys.path[:] = {path!r}; from gateway.cli.worker import run_worker; run_worker()"


async def start_worker(stand: Stand, config: bytes) -> Worker:
    """Start the process of a worker. It waits for its configuration on standard input."""
    ours, theirs = socket.socketpair()
    sockets = [another(each) for each in stand.sockets]
    numbers = [each.fileno() for each in sockets]
    setup = Setup(stand.host, stand.port, stand.workers, theirs.fileno(), numbers, stand.lock)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _code(sys.path), msgspec.json.encode(setup).decode()),
        stdin=asyncio.subprocess.PIPE,
        pass_fds=[theirs.fileno(), *numbers, stand.lock],
        process_group=0,  # Ctrl+C reaches the supervisor alone, which passes it on
    )
    for end in (theirs, *sockets):
        end.close()
    worker = Worker(process, WorkerChannel(ours), config)
    await worker.channel.open()
    return worker


async def asked(worker: Worker, name: str, body: bytes) -> list[bytes]:
    """The answer of a worker; empty if it has ended or does not answer in time."""
    try:
        return await worker.channel.ask(name, body, _ASK_SECONDS)
    except ChannelError:
        return []
