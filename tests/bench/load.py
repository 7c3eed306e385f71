"""
The load generator, a separate process: reads a `Job` as JSON from stdin, and prints a `Result` as JSON.

The loop is closed: every connection sends a request, reads the response, and sends the next. The prompts of
all requests differ in a number, since a gateway may keep what it found out about a prompt. It uses an asyncio
protocol, because at 10,000 chunks/s the benchmark would otherwise measure an HTTP client.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import os
import random
import re
import sys
import time
from array import array
from collections.abc import Callable
from typing import cast

import msgspec
import uvloop

from tests.bench import proc
from tests.bench.jobs import Job, Result
from tests.fakes.light import SERIAL, SERIAL_DIGITS

STAMP = re.compile(rb"@(\d+);")
TOKEN = b'" t'
END = b"\r\n0\r\n\r\n"
CHUNK_EDGE = re.compile(rb"\r\n[0-9a-fA-F]+\r\n")  # JSON contains no bare CR, so this belongs to HTTP
LONGEST_EDGE = 12
COMPLETE_S = 30.0


def percentile(values: array[float], share: float) -> float | None:
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, math.ceil(len(values) * share) - 1)]


class Sample:
    """CPU time since boot, in seconds."""

    def __init__(self, job: Job) -> None:
        self.at = time.perf_counter()
        self.target = [proc.cpu_seconds([pid]) for pid in job.target_pids]
        self.bench = proc.cpu_seconds(job.bench_pids)
        self.cores = proc.cores()


def foreign(busy: list[float], job: Job, bench: float, target: float) -> float:
    """Seconds of a core that others than bench and target used; the larger, if these have each their own."""
    theirs = sum(busy[core] for core in job.target_cores)
    if job.core in job.target_cores:
        return max(0.0, theirs - bench - target)
    return max(0.0, busy[job.core] - bench, theirs - target if job.target_pids else 0.0)


class Window:
    """Counters from the end of the warm-up to the end of the job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.open = False
        self.result = Result()
        self.latencies = array("d")
        self.first_bytes = array("d")
        self.delays = array("d")
        self.finished = asyncio.Event()

    def begin(self) -> None:
        self.open = True
        self._start = Sample(self.job)

    def end(self) -> Result:
        self.open = False
        result, job, milli = self.result, self.job, 1e3
        start, now = self._start, Sample(job)
        result.seconds = now.at - start.at
        spent = [after - before for before, after in zip(start.target, now.target, strict=True)]
        result.target_cpu_s, result.busiest_cpu_s = sum(spent), max(spent, default=0.0)
        bench = now.bench - start.bench
        result.bench_busy = bench / result.seconds
        busy = [after.busy - before.busy for before, after in zip(start.cores, now.cores, strict=True)]
        result.foreign = foreign(busy, job, bench, result.target_cpu_s) / result.seconds
        steal = sum(after.steal - before.steal for before, after in zip(start.cores, now.cores, strict=True))
        result.steal = steal / result.seconds / len(busy)
        for name, values, share in (
            ("p50_ms", self.latencies, 0.5),
            ("p99_ms", self.latencies, 0.99),
            ("first_byte_p50_ms", self.first_bytes, 0.5),
            ("delay_p50_ms", self.delays, 0.5),
            ("delay_p99_ms", self.delays, 0.99),
        ):
            value = percentile(values, share)
            setattr(result, name, None if value is None else value * milli)
        return result

    def request_done(self, sent: float, error: str) -> None:
        if not self.open:
            return
        result = self.result
        if error:
            result.errors += 1
            result.first_error = result.first_error or error
        else:
            result.requests += 1
            self.latencies.append(time.perf_counter() - sent)
        if self.job.requests is not None and result.requests + result.errors >= self.job.requests:
            self.finished.set()


class Client(asyncio.Protocol):
    """One keep-alive connection in a closed loop."""

    def __init__(self, window: Window, request: Callable[[], bytes]) -> None:
        self._window = window
        self._job = window.job
        self._request = request
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._head = b""
        self._in_body = False
        self._tail = b""
        self._carry = b"\r\n"  # so that CHUNK_EDGE also matches the first chunk size
        self._tokens = 0
        self._sent = time.perf_counter()
        self._transport.write(self._request())

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = self._begin_body(end + 4)
        if self._job.stream:
            self._count(data)
        if self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self._finish()
        else:
            self._tail = (self._tail + data)[-len(END) :]
            if self._tail.endswith(END) or self._tail == END[2:]:
                self._finish()

    def _begin_body(self, start: int) -> bytes:
        head = self._head[:start].lower()
        self._in_body = True
        self._status = head[9:12]
        length = head.find(b"content-length:")
        self._left = None if length < 0 else int(head[length + 15 : head.index(b"\r", length)])
        if self._job.stream:
            self._window.first_bytes.append(time.perf_counter() - self._sent)
        return self._head[start:]

    def _count(self, data: bytes) -> None:
        """Count token events. One split between two reads or HTTP chunks counts with its second part."""
        window, text = self._window, CHUNK_EDGE.sub(b"", self._carry + data)
        if self._job.stamped:
            now = time.monotonic_ns()
            stamps = STAMP.findall(text)
            found = len(stamps)
            if window.open:
                window.delays.extend((now - int(stamp)) * 1e-9 for stamp in stamps)
            rest = text[max(0, text.rfind(b"@")) :]
            self._carry = b"" if b";" in rest else rest
        else:
            found = text.count(TOKEN)
            edge = text.find(b"\r", max(0, len(text) - LONGEST_EDGE))
            end = len(text) if edge < 0 else edge
            self._carry = text[max(0, end + 1 - len(TOKEN)) :]
        self._tokens += found
        if window.open:
            window.result.chunks += found
            window.result.reads += 1

    def _finish(self) -> None:
        error = ""
        if self._status != b"200":
            error = f"status {self._status.decode()}"
        elif self._tokens != self._job.expected:
            error = f"{self._tokens} of {self._job.expected} tokens"
        self._window.request_done(self._sent, error)
        if not self._transport.is_closing():
            self._next()

    def _next(self) -> None:
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)

    def close(self) -> None:
        self._transport.abort()


async def keep_one(window: Window, request: Callable[[], bytes]) -> None:
    """Hold one connection, and open another when the server closes it."""
    job = window.job
    await asyncio.sleep(random.uniform(0, job.spread_s))
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, client = await loop.create_connection(lambda: Client(window, request), "127.0.0.1", job.port)
        except OSError as refused:
            window.request_done(0.0, f"connect: {refused.strerror}")
            await asyncio.sleep(0.05)
            continue
        try:
            await client.lost
            window.request_done(0.0, "connection closed")
        finally:
            client.close()


def requests(job: Job) -> Callable[[], bytes]:
    """Returns the next request at each call; its prompt has a number of its own."""
    headers = {"host": f"127.0.0.1:{job.port}", "content-type": "application/json", **job.headers}
    body = job.body.encode()
    lines = [f"POST {job.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    request = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body
    before, mark, after = request.partition(SERIAL)
    if not mark:
        return lambda: request
    head, tail = before + mark, after[SERIAL_DIGITS:]
    numbers = itertools.count(random.randrange(10 ** (SERIAL_DIGITS - 1)))
    return lambda: b"%b%0*d%b" % (head, SERIAL_DIGITS, next(numbers), tail)


async def complete(window: Window) -> None:
    """Wait until every stream has begun: for thousands, a slow target takes longer than `spread_s`."""
    for _ in range(round(COMPLETE_S / 0.1)):
        missing = window.job.connections - len(window.first_bytes)
        if missing <= 0 or not window.job.spread_s:
            return
        await asyncio.sleep(0.1)
    window.result.errors += missing
    window.result.first_error = f"{missing} streams did not begin"


async def run(job: Job) -> Result:
    window = Window(job)
    request = requests(job)
    resident = proc.resident_mib(job.target_pids)
    tasks = [asyncio.create_task(keep_one(window, request)) for _ in range(job.connections)]
    await asyncio.sleep(job.warmup_s + job.spread_s)
    await complete(window)
    gc.collect()
    gc.freeze()
    gc.disable()
    window.begin()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(window.finished.wait(), None if job.requests else job.seconds)
    result = window.end()
    result.kib_per_connection = 1024 * (proc.resident_mib(job.target_pids) - resident) / job.connections
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return result


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    job.bench_pids.append(os.getpid())
    result = uvloop.run(run(job))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
