"""
The load of the trial `idle`: how long small requests wait, alone and beside idle clients and large prompts.

It reads a `Job` and prints a `Result`, as `tests.bench.load` does. One client sends a small request every
10 ms (`tests.bench.prober`), for `seconds` to the target alone. Then each of the idle clients sends one
request and keeps its connection, and another client sends large prompts, one after the other, while the
first client does the same again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from array import array
from collections.abc import Callable
from typing import Any

import msgspec
import uvloop

from tests.bench import proc
from tests.bench.jobs import Job, Result
from tests.bench.load import Client, Window, keep_one, percentile, requests
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


async def probe(job: Job) -> tuple[float, int]:
    """The 99th percentile of the waits in milliseconds, and how many requests failed."""
    key = job.headers.get("authorization", "").removeprefix("Bearer ")
    words = [sys.executable, "-m", "tests.bench.prober", str(job.port), str(job.seconds), key, MODEL]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    found: dict[str, Any] = json.loads(output)
    failed = sum(count for status, count in found["statuses"].items() if status != "200")
    return 1000 * (percentile(array("d", found["waits"]), 0.99) or 0.0), failed


async def run(job: Job) -> Result:
    quiet, failed = await probe(job)
    resident = proc.resident_mib(job.target_pids)
    clients = await stay(job)
    held = proc.resident_mib(job.target_pids) - resident
    window = Window(job)
    window.begin()
    large = asyncio.create_task(keep_one(window, requests(job)))
    p99, failed_beside = await probe(job)
    result = window.end()
    large.cancel()
    closed = sum(client.lost.done() for client in clients)
    if closed or failed or failed_beside:
        result.errors += closed + failed + failed_beside
        lost = f"{closed} idle clients lost, {failed} and {failed_beside} small requests failed"
        result.first_error = result.first_error or lost
    result.quiet_p99_ms, result.p99_ms = quiet, p99
    result.kib_per_connection = 1024 * held / job.connections
    return result


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    job.bench_pids.append(os.getpid())
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(job))))


if __name__ == "__main__":
    main()
