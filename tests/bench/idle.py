"""
The load of the trial `idle`: how long small requests wait, alone and beside idle clients and large prompts.

It reads a `Job` and prints a `Result`, as `tests.bench.load` does. One client sends a small request every
10 ms (`tests.bench.prober`), for `seconds` to the target alone. Then each of the idle clients sends one
request and keeps its connection, and another client sends a large prompt every 50 ms (`tests.bench.large`),
while the first client does the same again. Both are processes of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from array import array
from asyncio.subprocess import PIPE
from collections.abc import Callable

import msgspec
import uvloop

from tests.bench import proc
from tests.bench.jobs import Job, Result
from tests.bench.load import Client, Window, percentile, requests
from tests.bench.targets import MODEL
from tests.bench.trials import body_of

AT_ONCE = 50
"""Idle clients that send their request at the same time."""


class Once(Client):
    """Sends one request and keeps the connection."""

    def __init__(self, window: Window, request: Callable[[], bytes]) -> None:
        super().__init__(window, request)
        self.answered = asyncio.get_running_loop().create_future()

    def _next(self) -> None:
        self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.answered.done():
            self.answered.set_result(None)


async def stay(job: Job) -> list[Once]:
    """The idle clients."""
    window, request = Window(job), requests(msgspec.structs.replace(job, body=json.dumps(body_of())))
    loop = asyncio.get_running_loop()
    clients: list[Once] = []
    while len(clients) < job.connections:
        for _ in range(AT_ONCE):
            _, client = await loop.create_connection(lambda: Once(window, request), "127.0.0.1", job.port)
            clients.append(client)
        await asyncio.gather(*(client.answered for client in clients[-AT_ONCE:]))
    return clients


class Asked(msgspec.Struct):
    """What a client in a process of its own reports."""

    waits: list[float]
    """Seconds from each request to its response."""
    statuses: dict[str, int]

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != "200")

    def wait_ms(self, share: float) -> float:
        """The wait that this share of the requests does not exceed."""
        return 1000 * (percentile(array("d", self.waits), share) or 0.0)


async def probe(job: Job) -> Asked:
    """The small requests."""
    key = job.headers.get("authorization", "").removeprefix("Bearer ")
    words = [sys.executable, "-m", "tests.bench.prober", str(job.port), str(job.seconds), key, MODEL]
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE)
    output, _ = await process.communicate()
    return msgspec.json.decode(output, type=Asked)


async def beside_large(job: Job) -> tuple[Asked, Asked, Result]:
    """The small requests and the large prompts beside them, and what the target used meanwhile."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.large"), stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(job) + b"\n")
    await process.stdout.readline()
    window = Window(job)
    window.begin()
    small = await probe(job)
    output, _ = await process.communicate(b"")  # which closes its stdin
    return small, msgspec.json.decode(output, type=Asked), window.end()


async def run(job: Job) -> Result:
    quiet = await probe(job)
    resident = proc.resident_mib(job.target_pids)
    clients = await stay(job)
    held = proc.resident_mib(job.target_pids) - resident
    small, large, result = await beside_large(job)
    closed = sum(client.lost.done() for client in clients)
    result.requests, result.errors = len(large.waits), closed + quiet.failed + small.failed + large.failed
    if result.errors:
        result.first_error = (
            f"{closed} idle clients lost, {quiet.failed} and {small.failed} small requests failed, "
            f"{large.failed} large ones"
        )
    result.quiet_p99_ms, result.p99_ms, result.p50_ms = (
        quiet.wait_ms(0.99),
        small.wait_ms(0.99),
        large.wait_ms(0.5),
    )
    result.kib_per_connection = 1024 * held / job.connections
    return result


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    job.bench_pids.append(os.getpid())
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(job))))


if __name__ == "__main__":
    main()
