"""
The load generator, a separate process: reads a `Job` as JSON from stdin, and prints a `Result` as JSON.

The loop is closed: every connection sends its request, reads the response, and sends it again. It uses an
asyncio protocol, because at 10,000 chunks/s the benchmark would otherwise measure an HTTP client.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import random
import re
import sys
import time
from array import array
from typing import cast

import msgspec
import uvloop

from tests.bench import proc

STAMP = re.compile(rb"@(\d+);")
TOKEN = b'" t'
END = b"\r\n0\r\n\r\n"
CHUNK_EDGE = re.compile(rb"\r\n[0-9a-fA-F]+\r\n")  # JSON contains no bare CR, so this belongs to HTTP
LONGEST_EDGE = 12


class Job(msgspec.Struct, kw_only=True):
    port: int
    path: str
    headers: dict[str, str]
    body: str
    connections: int
    stream: bool = False
    stamped: bool = False
    expected: int = 0  # token events that a stream must have
    warmup_s: float = 0.5
    seconds: float = 3.0
    requests: int | None = None  # stop after this many instead of after `seconds`
    spread_s: float = 0.0  # start the connections at random times within these seconds
    target_pids: list[int] = []
    bench_pids: list[int] = []  # this process is included
    core: int = 1


class Result(msgspec.Struct, kw_only=True):
    seconds: float = 0.0
    requests: int = 0
    chunks: int = 0
    reads: int = 0
    errors: int = 0
    first_error: str = ""
    p50_ms: float | None = None
    p99_ms: float | None = None
    first_byte_p50_ms: float | None = None
    delay_p50_ms: float | None = None
    delay_p99_ms: float | None = None
    target_cpu_s: float = 0.0
    bench_busy: float = 0.0  # share of their core that backend and load used
    foreign: float = 0.0  # larger share of the two cores that other processes used
    steal: float = 0.0  # share of both cores that the host took


def percentile(values: array[float], share: float) -> float | None:
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, math.ceil(len(values) * share) - 1)]


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
        self._start = (time.perf_counter(), *self._sample())

    def end(self) -> Result:
        self.open = False
        result, milli = self.result, 1e3
        started, target, bench, cores = self._start
        now_target, now_bench, now_cores = self._sample()
        result.seconds = time.perf_counter() - started
        result.target_cpu_s = now_target - target
        result.bench_busy = (now_bench - bench) / result.seconds
        used = {self.job.core: now_bench - bench} | ({0: result.target_cpu_s} if self.job.target_pids else {})
        busy = {i: now_cores[i].busy - cores[i].busy for i in used if i < len(cores)}
        result.foreign = max(max(0.0, busy[i] - used[i]) for i in busy) / result.seconds
        steal = sum(now.steal - was.steal for now, was in zip(now_cores, cores, strict=True))
        result.steal = steal / result.seconds / len(cores)
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

    def _sample(self) -> tuple[float, float, list[proc.Core]]:
        return proc.cpu_seconds(self.job.target_pids), proc.cpu_seconds(self.job.bench_pids), proc.cores()

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

    def __init__(self, window: Window, request: bytes) -> None:
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
        self._transport.write(self._request)

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
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)

    def close(self) -> None:
        self._transport.abort()


async def keep_one(window: Window, request: bytes) -> None:
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


def encode(job: Job) -> bytes:
    headers = {"host": f"127.0.0.1:{job.port}", "content-type": "application/json", **job.headers}
    body = job.body.encode()
    lines = [f"POST {job.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


async def run(job: Job) -> Result:
    window = Window(job)
    request = encode(job)
    tasks = [asyncio.create_task(keep_one(window, request)) for _ in range(job.connections)]
    await asyncio.sleep(job.warmup_s + job.spread_s)
    gc.collect()
    gc.freeze()
    gc.disable()
    window.begin()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(window.finished.wait(), None if job.requests else job.seconds)
    result = window.end()
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
