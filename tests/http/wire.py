"""What the suites by concern share: replicas behind a gateway, raw answers, waiting for a state."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.telemetry.record import Record
from tests.fakes.backend import GENERATION, Backend
from tests.fakes.connection import Request
from tests.serving import Running, configuration, serving

CHAT = "/v1/chat/completions"
NEVER_MS = 3_600_000.0
"""A delay that outlasts every test."""

_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n)|.+", re.DOTALL)


def ask(content: str = "hello", **fields: Any) -> dict[str, Any]:
    """A chat request at the tier `direct`."""
    return {"model": "tiny:direct", "messages": [{"role": "user", "content": content}]} | fields


@dataclass(frozen=True)
class Answer:
    """A whole answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of the error object; None when there is no error."""
        error = self.json.get("error")
        return error["code"] if error else None


async def post(
    running: Running,
    body: Mapping[str, Any] | bytes | None = None,
    *,
    path: str = CHAT,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """POST a body, or `ask()`, to the gateway."""
    return await post_to(f"{running.url}{path}", ask() if body is None else body, headers)


async def post_recorded(running: Running, *args: Any, **options: Any) -> tuple[Answer, Record]:
    """The same, with what the gateway notes about it; no other request may be under way."""
    before = len(running.records)
    answer = await post(running, *args, **options)
    return answer, (await running.recorded(before + 1))[before]


async def post_to(
    url: str, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
) -> Answer:
    """POST a body to any server, on a connection of its own."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as http, http.post(url, data=data, headers=headers) as response:
        return Answer(response.status, response.headers, await response.read())


def events(body: bytes) -> list[bytes]:
    """The server-sent events of a body, their ends included; half an event at the end is one, too."""
    return _EVENT.findall(body)


def tokens(body: bytes) -> list[str]:
    """What the content and reasoning deltas of a chat stream say."""
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
    """The requests for an answer that reached a backend: health checks and the like are left out."""
    return [request for request in backend.requests if request.path in GENERATION]


def slots(running: Running) -> list[int]:
    """Requests the gateway believes to be at each replica."""
    return [backend.in_flight for _, backend in running.gateway.snapshot.backends()]


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for a state."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def replicated(count: int = 2, **changes: Any) -> AsyncIterator[tuple[Running, list[Backend]]]:
    """A gateway in front of several replicas of the model `tiny`; the first is asked first."""
    async with contextlib.AsyncExitStack() as stack:
        backends = [await stack.enter_async_context(Backend("tiny")) for _ in range(count)]
        urls = [backend.url for backend in backends]
        yield await stack.enter_async_context(serving(configuration(*urls, **changes))), backends


@contextlib.asynccontextmanager
async def connection(
    running: Running, *, receive_buffer: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection to the gateway, whose end the test decides."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def wired(body: Mapping[str, Any], path: str = CHAT, *headers: str) -> bytes:
    """A request as it stands on the wire."""
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: gateway", f"content-length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data
