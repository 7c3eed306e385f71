"""Helpers of the tests over HTTP: requests and responses, a gateway with replicas, waiting for a state."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp

from gateway.telemetry.record import Record
from tests.fakes.backend import GENERATION, Backend
from tests.fakes.connection import Request
from tests.http import raw_http
from tests.http.raw_http import Answer
from tests.serving import Running, configuration, serving

CHAT = "/v1/chat/completions"
NEVER_MS = 3_600_000.0
"""A delay that outlasts every test."""

_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n)|.+", re.DOTALL)


def ask(content: str = "hello", **fields: Any) -> dict[str, Any]:
    """The body of a chat request, pinned to the tier `direct`."""
    return {"model": "tiny:direct", "messages": [{"role": "user", "content": content}]} | fields


_serial = itertools.count()


def distinct(content: str = "hello", **fields: Any) -> dict[str, Any]:
    """Like `ask`, but no two bodies are the same: a request that a replica has lost is not sent again."""
    return ask(content, user=f"user {next(_serial)}") | fields


async def post(
    running: Running,
    body: Mapping[str, Any] | bytes | None = None,
    *,
    path: str = CHAT,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """POST a body, by default `distinct()`, to the gateway."""
    return await post_to(f"{running.url}{path}", distinct() if body is None else body, headers)


async def post_recorded(running: Running, *args: Any, **options: Any) -> tuple[Answer, Record]:
    """Like `post`, but also returns the gateway's record. No other request may be running."""
    before = len(running.records)
    answer = await post(running, *args, **options)
    return answer, (await running.recorded(before + 1))[before]


async def post_to(
    url: str, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
) -> Answer:
    """POST a body to any server, on a new connection."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    typed = {"Content-Type": "application/json"} | dict(headers or {})
    async with aiohttp.ClientSession() as http, http.post(url, data=data, headers=typed) as response:
        return Answer(response.status, response.headers, await response.read())


def events(body: bytes) -> list[bytes]:
    """The server-sent events of a body, with their blank lines. An incomplete last event counts as one."""
    return _EVENT.findall(body)


def tokens(body: bytes) -> list[str]:
    """The texts of the content and reasoning deltas of a chat stream."""
    said = []
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            deltas = [choice.get("delta", {}) for choice in json.loads(line[6:]).get("choices", [])]
            said += [text for d in deltas if (text := d.get("content") or d.get("reasoning"))]
    return said


def stream_errors(body: bytes) -> list[dict[str, Any]]:
    """The error objects of a stream's error events."""
    chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    return [chunk["error"] for chunk in chunks if "error" in chunk]


def asked(backend: Backend) -> list[Request]:
    """The completion and embedding requests that reached a backend, without health checks and the like."""
    return [request for request in backend.requests if request.path in GENERATION]


async def readiness(running: Running) -> tuple[int, str]:
    """The status of /readyz, and what it says."""
    async with running.http.get(f"{running.url}/readyz") as response:
        return response.status, (await response.json())["status"]


def slots(running: Running) -> list[int]:
    """For each replica, the number of running requests that the gateway counts."""
    return [backend.in_flight for _, backend in running.gateway.snapshot.backends()]


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def replicated(count: int = 2, **changes: Any) -> AsyncIterator[tuple[Running, list[Backend]]]:
    """A gateway in front of several replicas of the model `tiny`; the first gets the first request."""
    async with contextlib.AsyncExitStack() as stack:
        backends = [await stack.enter_async_context(Backend("tiny")) for _ in range(count)]
        urls = [backend.url for backend in backends]
        yield await stack.enter_async_context(serving(configuration(*urls, **changes))), backends


def connection(
    running: Running,
) -> contextlib.AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection to the gateway, closed at the end."""
    return raw_http.connect(running.url)


def wired(body: Mapping[str, Any], path: str = CHAT, *headers: str) -> bytes:
    """The bytes of a POST request."""
    return raw_http.post(path, json.dumps(body).encode(), *headers)
