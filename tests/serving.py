"""Runs the real gateway on a real port, in the test's event loop or as a separate process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import uvicorn
import yaml

from gateway.app import Gateway
from gateway.config.loader import digest_of, parse
from gateway.config.settings import Settings
from gateway.http.server import Server
from gateway.snapshot import Snapshot
from gateway.telemetry.record import Record

TIERS = {
    "direct": {"thinking": 0, "answer": 32},
    "short": {"thinking": 16, "answer": 32},
    "medium": {"thinking": 64, "answer": 32},
    "long": {"thinking": 256, "answer": 32},
}


def free_port() -> int:
    """A port on which nothing listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(*urls: str, **changes: Any) -> dict[str, Any]:
    """Settings for a model `tiny` on these backends, named a, b, …; `changes` replace whole sections."""
    replicas = [{"name": "abcdef"[index], "url": url} for index, url in enumerate(urls)]
    model = {"family": "qwen3", "replicas": replicas, "tiers": TIERS} | changes.pop("model", {})
    patient = {"timeout": 20}  # so that a backend on a busy machine does not count as down
    fixed = {"head": "baseline", "server": {"access_log": False}, "health": patient}
    fixed["metrics"] = {"max_age": 0}  # a test looks right after the traffic
    return {"models": {"tiny": model}} | fixed | changes


@dataclass
class Running:
    """A gateway that is serving."""

    url: str
    gateway: Gateway
    server: Server
    records: list[Record]
    """The record of every request, in the order in which they ended."""
    http: aiohttp.ClientSession

    def client(self, key: str = "none", **options: Any) -> openai.AsyncOpenAI:
        """The official client. It does not retry, so that a test sees the first response."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    async def chat(self, content: str = "hello", **fields: Any) -> aiohttp.ClientResponse:
        """POST a chat request and read the whole response."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}]} | fields
        async with self.http.post(f"{self.url}/v1/chat/completions", json=body) as response:
            await response.read()
        return response

    async def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, by its name and labels."""
        async with self.http.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x[:1] != "#")}

    async def recorded(self, count: int, seconds: float = 10) -> list[Record]:
        """All records, once there are at least `count`."""
        async with asyncio.timeout(seconds):
            while len(self.records) < count:
                await asyncio.sleep(0.005)
        return self.records


redis_timeout: float | None = None
"""Replaces `redis.timeout` and may exceed what the settings allow; see the fixture `patient_redis`."""


class _Brisk:
    """asyncio as uvicorn sees it in tests: 0.1 s at each turn of its loops adds up over all tests."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.005))


uvicorn.server.asyncio = _Brisk()  # type: ignore[attr-defined,assignment]


def _patient(settings: Settings) -> Settings:
    if redis_timeout is None:
        return settings
    redis = settings.redis.model_copy(update={"timeout": redis_timeout})
    return settings.model_copy(update={"redis": redis})


@contextlib.asynccontextmanager
async def serving(
    settings: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
    **parts: Any,
) -> AsyncIterator[Running]:
    """The gateway on a free port, in this event loop. At the end it stops as it would after SIGTERM.

    parts: further arguments of `Gateway`.
    """
    read = parse(yaml.safe_dump(dict(settings)), environ or {})
    digest = digest_of(path.read_bytes()) if path else "test"
    snapshot = Snapshot.build(_patient(read), digest)
    gateway = Gateway(snapshot, path, **parts)
    records: list[Record] = []
    gateway.finished.at_once.append(records.append)
    protocol = gateway.http_protocol()
    options: dict[str, Any] = {"http": protocol, "ws": "none", "lifespan": "on", "log_config": None}
    config = uvicorn.Config(
        gateway, host="127.0.0.1", port=0, access_log=False, timeout_graceful_shutdown=5, **options
    )
    delay = snapshot.settings.server.drain_delay
    server = Server(config, drain=gateway.drain, drain_delay=delay, stopped=lambda: gateway.flush(0.1))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]

    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
        if task.done():
            await task
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with aiohttp.ClientSession() as http:
            yield Running(f"http://127.0.0.1:{port}", gateway, server, records, http)
    finally:
        server.should_exit = True
        await task


@dataclass
class Process:
    """A gateway that runs as a separate process."""

    url: str
    process: asyncio.subprocess.Process
    log: Path
    """Its standard error."""
    access_log: Path
    """Its standard output."""


@contextlib.asynccontextmanager
async def process(
    settings: Mapping[str, Any], folder: Path, *, port: int, streams: tuple[int, int] | None = None
) -> AsyncIterator[Process]:
    """`thinkmeter serve` with the file folder/gateway.yaml, killed at the end if it still runs.

    streams: descriptors for its standard output and standard error, in place of files.
    """
    config = folder / "gateway.yaml"
    config.write_text(yaml.safe_dump(dict(settings)))
    log, access_log = folder / "stderr.log", folder / "stdout.log"
    with log.open("wb") as stderr, access_log.open("wb") as stdout:
        command = (sys.executable, "-m", "gateway", "serve", str(config), "--port", str(port))
        out, err = streams or (stdout.fileno(), stderr.fileno())
        running = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=err)
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as http:
            while True:
                assert running.returncode is None, log.read_text()
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"{url}/healthz"):
                        break
                await asyncio.sleep(0.05)
        yield Process(url, running, log, access_log)
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
