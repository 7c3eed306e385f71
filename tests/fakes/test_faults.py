"""The fake backend fails exactly as a test scripts it, because every fault test relies on that."""

from __future__ import annotations

import contextlib

import aiohttp
import pytest

from tests.fakes.backend import Backend
from tests.fakes.client import CHAT, ask, chunks, raw, stream
from tests.fakes.fault import Fault


async def test_scripted_faults_in_order(backend: Backend, http: aiohttp.ClientSession) -> None:
    """Scripted faults are used up in order and do not apply to health checks."""
    backend.script(Fault(status=503, headers={"Retry-After": "2"}), times=2)
    backend.script(Fault(status=429, body={"error": "slow down"}))
    seen = []
    for _ in range(4):
        async with http.get("/health") as health, http.post(CHAT, json=ask()) as response:
            assert health.status == 200
            seen.append((response.status, response.headers.get("retry-after")))
            error = await response.json()
    assert seen == [(503, "2"), (503, "2"), (429, None), (200, None)]
    assert "choices" in error
    assert "ServiceUnavailableError" not in error


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault(status=500), 500, '"type":"InternalServerError","param":null,"code":500'),
        (Fault(garbage=9), 200, "\ufffd\ufffd\0{"),
        (Fault(body="<html>", content_type="text/html"), 200, "<html>"),
        (Fault(empty=True), 200, ""),
        (
            Fault(context_too_long=True),
            400,
            "This model's maximum context length is 32768 tokens. However, you",
        ),
        (Fault(usage="spaced"), 200, '"usage": {'),
        (Fault(usage="null"), 200, '"usage":null'),
        (Fault(pad=1_000_000), 200, "x" * 1_000_000),
    ],
)
async def test_other_answers(
    backend: Backend, http: aiohttp.ClientSession, fault: Fault, status: int, text: str
) -> None:
    """Each fault that replaces the response has its documented effect."""
    backend.script(fault)
    async with http.post(CHAT, json=ask()) as response:
        assert status == response.status
        assert text in await response.text(errors="replace")


async def test_missing_usage(backend: Backend, http: aiohttp.ClientSession) -> None:
    """A fault can leave usage out of streams and whole responses, even if the request asks for it."""
    backend.default = Fault(usage="missing")
    assert b"usage" not in await stream(http, stream_options={"include_usage": True})
    async with http.post(CHAT, json=ask()) as response:
        assert "usage" not in await response.json()


@pytest.mark.parametrize(
    ("fault", "tail"),
    [
        (
            Fault(after=2, end="cut"),
            b'" t1"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n\r\n',
        ),
        (Fault(after=2, end="clean"), b'"token_ids":null}]}\n\n\r\n0\r\n\r\n'),
        (Fault(after=2, end="cut", half_event=True), b"\r\n"),
        (Fault(after=2, error="boom"), b'"code": 500}}\n\ndata: [DONE]\n\n\r\n0\r\n\r\n'),
        (Fault(after=-1, end="cut"), b"\r\n\r\n"),
    ],
)
async def test_broken_streams(backend: Backend, fault: Fault, tail: bytes) -> None:
    """A stream breaks off exactly where and how the fault says."""
    backend.script(fault)
    wire = await raw(backend, stream=True)
    assert wire.endswith(tail)
    assert max(fault.after, 0) == wire.count(b'"content":" t')
    if fault.half_event:
        assert wire.rpartition(b"data: ")[2].count(b"}") < 3


@pytest.mark.parametrize("fault", [Fault(reset=True), Fault(after=1, end="reset")])
async def test_reset(backend: Backend, fault: Fault) -> None:
    """The client sees a connection reset, and the next connection works."""
    backend.script(fault)
    with pytest.raises(ConnectionResetError):
        await raw(backend, stream=True)
    assert (await raw(backend)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_refuse(backend: Backend) -> None:
    """A connection that is closed at accept gets no byte and is not recorded as a request."""
    backend.script(Fault(refuse=True))
    with contextlib.suppress(ConnectionResetError):
        assert await raw(backend) == b""
    assert backend.requests == []
    assert (await raw(backend)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_down_and_up(backend: Backend) -> None:
    """A backend that is down refuses connections, and comes back on the same port."""
    port = backend.port
    await backend.down()
    with pytest.raises(ConnectionRefusedError):
        await raw(backend)
    await backend.up()
    assert port == backend.port
    assert (await raw(backend)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_rewritten_bytes_say_the_same(backend: Backend, http: aiohttp.ClientSession) -> None:
    """Glued, split and commented streams and those with CRLF carry the same chunks."""
    expected = [chunk["choices"] for chunk in chunks(await stream(http))]
    for fault in (Fault(glue=5), Fault(split=1), Fault(split=7, glue=3), Fault(crlf=True), Fault(comments=2)):
        backend.script(fault)
        body = await stream(http)
        assert expected == [chunk["choices"] for chunk in chunks(body)]
        assert fault.crlf == (b"\r\n\r\n" in body)
        assert bool(fault.comments) == (b": keep-alive\n\n" in body)
