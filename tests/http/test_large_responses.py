"""Responses of any size and shape are passed on within bounded memory, as fast as the client reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.http.raw_http import read_response
from tests.http.wire import ask, connection, post_recorded, wired
from tests.making import USAGE
from tests.serving import Running, configuration, serving

MB = 1_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Scripted:
    """A backend that responds to every request with the same parts, as fast as they are taken."""

    parts: Iterable[bytes]
    healthy: bytes = HEALTHY
    sent: int = 0
    """Bytes of the responses that the gateway, or a buffer on the way, has taken."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The gateway has closed a connection before the response was complete."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=65_536)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"GET"):
                    writer.write(self.healthy)
                    continue
                for part in self.parts:
                    writer.write(part)
                    self.sent += len(part)
                    await writer.drain()
                break
        except ConnectionError:
            self.left.set()
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@contextlib.asynccontextmanager
async def scripted(*parts: bytes, each: Iterable[bytes] = (), **changes: Any) -> AsyncIterator[
    tuple[Running, Scripted]
]:  # fmt: skip
    """A gateway in front of a backend that responds with `parts`, and then with `each`."""
    backend = Scripted([*parts, *each] if not isinstance(each, Endless) else Endless(each.part, parts))
    listener = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with serving(configuration(url, **changes)) as running:
            yield running, backend


@dataclass
class Endless:
    """The first parts, and then a part again and again."""

    part: bytes
    first: tuple[bytes, ...] = ()

    def __iter__(self) -> Any:
        yield from self.first
        while True:
            yield self.part


def large(size: int) -> bytes:
    """A response of about this size, as `logprobs` make it, whose usage is not its last field."""
    item = {"token": '"usage":{', "logprob": -0.5, "top_logprobs": [{"usage": None}] * 20}
    items = [item] * (size // len(json.dumps(item)))
    choice = {"index": 0, "message": {"content": "x"}, "logprobs": items, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": USAGE, "prompt_logprobs": None}).encode()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_large_response_arrives_whole_and_its_usage_counts(*, chunked: bool) -> None:
    """A response over the bound passes unchanged, and its token usage is read as it passes."""
    body = large(2 * MB)
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    async with scripted(HEAD + framing + b"\r\n\r\n", sent) as (running, _):
        answer, record = await post_recorded(running)

    assert (answer.status, answer.body == body) == (200, True)
    assert (record.usage.prompt, record.usage.completion) == (7, 42)
    assert (record.usage.source, record.usage.finish_reason) == ("backend", "stop")
    assert answer.headers.get("content-length") == (None if chunked else str(len(body)))


async def test_client_that_does_not_read_stops_a_large_response() -> None:
    """While the client reads nothing, only what fits the buffers is taken from the backend."""
    framing = b"Content-Length: %d\r\n\r\n" % (400 * MB)
    async with (
        scripted(HEAD + framing + b"{", each=Endless(b" " * 65_536)) as (running, backend),
        connection(running) as (reader, writer),
    ):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(wired(ask()))
        taken = -1
        while taken < backend.sent or not backend.sent:
            taken = backend.sent
            await asyncio.sleep(0.1)

        assert taken < 40 * MB
        writer.transport.abort()
        async with asyncio.timeout(10):
            await backend.left.wait()


async def test_large_response_that_breaks_off() -> None:
    """The client sees that a response is incomplete: the connection ends before its declared length."""
    async with (
        scripted(HEAD + b"Content-Length: 3000000\r\n\r\n", large(2 * MB)) as (running, _),
        connection(running) as (reader, writer),
    ):
        writer.write(wired(ask()))
        with pytest.raises(asyncio.IncompleteReadError):
            await read_response(reader)
        (record,) = await running.recorded(1)

    assert record.error
    assert record.error.code == "backend_disconnected"


async def test_large_response_that_is_not_json() -> None:
    """A large response that cannot be an answer is refused before a byte of it is passed on."""
    async with scripted(HEAD + b"Content-Length: 2000000\r\n\r\n", b"x" * 2 * MB) as (running, _):
        answer, _record = await post_recorded(running)

    assert (answer.status, answer.code) == (502, "backend_error")


@pytest.mark.parametrize(
    "endless",
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536),
        (b"HTTP/1.1 200 ", b"x" * 65_536),
        (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 1000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"x" * 65_536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ", b"x" * 65_536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X: y\r\n" * 10_000),
    ],
    ids=["header", "reason", "continue", "extension", "trailer", "trailers"],
)
async def test_endless_framing_is_refused(endless: tuple[bytes, bytes]) -> None:
    """A backend cannot fill memory with what is not the body of a response."""
    first, part = endless
    async with scripted(first, each=Endless(part)) as (running, backend):
        answer, _record = await post_recorded(running)

        assert (answer.status, answer.code) == (502, "backend_error")
        assert backend.sent < 20 * MB
        await asyncio.wait_for(backend.left.wait(), 10)


async def test_endless_health_response_is_refused() -> None:
    """A replica whose health check does not end is not healthy, and its response is not kept."""
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20 * MB
    backend = Scripted([], endless)
    listener = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with serving(configuration(url)) as running:
            assert [replica.healthy for _, replica in running.gateway.snapshot.backends()] == [False]


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
async def test_event_without_end_is_passed_on(*, first: bool) -> None:
    """An event that never ends is passed on in pieces, with back-pressure, and not kept."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"'
    begun = STREAM if first else STREAM + b'data: {"choices":[]}\n\n'
    async with (
        scripted(begun + event, each=Endless(b"y" * 65_536)) as (running, backend),
        connection(running) as (reader, writer),
    ):
        writer.write(wired(ask(stream=True)))
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(3 * MB)
        writer.transport.abort()
        await asyncio.wait_for(backend.left.wait(), 10)


async def test_event_in_small_pieces_arrives_whole() -> None:
    """The first event and a later one may arrive in any number of pieces."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"y" * 100_000 + b'"}}]}\n\n'
    pieces = [event[at : at + 1000] for at in range(0, len(event), 1000)]
    async with scripted(STREAM, each=[*pieces, *pieces, b"data: [DONE]\n\n"]) as (running, _):
        answer, record = await post_recorded(running, ask(stream=True))

    assert answer.body == event + event + b"data: [DONE]\n\n"
    assert record.usage.completion == 2
