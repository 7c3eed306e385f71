"""Bytes that are not HTTP, and several requests on one connection."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import BODY, PATH, assert_error, closed, connect, exchange, post, read_response
from tests.http.wire import asked
from tests.serving import Running


@pytest.mark.parametrize(
    "line",
    [
        b"hello\r\n\r\n",
        b"BREW /coffee HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header: 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nx: \x00\r\n\r\n",
        b"POST /v1/route HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/route HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/route HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/route HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
    ],
)
async def test_invalid_http(tight: Running, line: bytes) -> None:
    """Bytes that are not an HTTP request get an error in OpenAI's shape, and the connection closes."""
    async with connect(tight.url) as (reader, writer):
        writer.write(line)

        answer = await read_response(reader)

        assert 400 <= answer.status < 500
        assert_error(answer, answer.status, answer.code)
        if answer.code != "route_not_found":
            assert answer.headers["connection"] == "close"
            assert await closed(reader) == b""


async def test_broken_chunk_ends_the_request(tight: Running) -> None:
    """A chunk whose size is not a number ends the request with a 400."""
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()

    answer = await exchange(tight.url, head + b"zz\r\n")

    assert_error(answer, 400, "invalid_value")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_body_without_a_length(tight: Running, backend: Backend, version: str) -> None:
    """A client that does not say how long its body is gets told so. The connection closes behind that."""
    head = f"POST {PATH} HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\n\r\n"
    async with connect(tight.url) as (reader, writer):
        writer.write(head.encode() + BODY)
        answer = await read_response(reader)
        await closed(reader)

    assert_error(answer, 400, "invalid_json")
    assert "send its Content-Length" in answer.json["error"]["message"]
    assert not asked(backend)


async def test_garbage_behind_a_running_stream(tight: Running, backend: Backend) -> None:
    """Garbage sent during a streamed response closes the connection and adds nothing to the response."""
    backend.default = Fault(after=2, end="stall")
    async with connect(tight.url) as (reader, writer):
        streamed = json.dumps(json.loads(BODY) | {"stream": True}).encode()
        writer.write(post(PATH, streamed))
        await reader.readuntil(b"data: ")

        writer.write(b"\x00garbage\r\n\r\n")

        assert b"HTTP/1.1" not in await closed(reader)
        await backend.wait_until(lambda b: b.aborted)


async def test_pipelining_client_disconnects(tight: Running, backend: Backend) -> None:
    """A disconnect cancels the running request even if another one waits behind it."""
    backend.default = Fault(after=1, end="stall")
    async with connect(tight.url) as (reader, writer):
        streamed = json.dumps(json.loads(BODY) | {"stream": True}).encode()
        writer.write(post(PATH, streamed) + post(PATH, BODY))
        await reader.readuntil(b"data: ")

        writer.close()

        await backend.wait_until(lambda b: b.aborted)
        assert (await tight.recorded(1))[0].error.code == "client_closed"  # type: ignore[union-attr]


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
async def test_upgrade_is_declined(tight: Running, upgrade: str, caplog: pytest.LogCaptureFixture) -> None:
    """An offer to change the protocol is ignored: this request and the next are served as HTTP/1.1."""
    offer = ("connection: upgrade, http2-settings", f"upgrade: {upgrade}", "http2-settings: AAMAAABk")
    chunked = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n" + "\r\n".join(offer)
    with caplog.at_level(logging.WARNING):
        async with connect(tight.url) as (reader, writer):
            for _ in range(2):
                writer.write(post(PATH, BODY, *offer))
                assert (await read_response(reader)).status == 200
            request = post(PATH, BODY, *offer)
            writer.write(request[:-20])
            await asyncio.sleep(0.02)
            writer.write(request[-20:])
            assert (await read_response(reader)).status == 200
            writer.write(chunked.encode() + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
            assert (await read_response(reader)).status == 200
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + "\r\n".join(offer).encode() + b"\r\n\r\n")
            assert (await read_response(reader)).status == 200

    assert caplog.text == ""


async def test_pipelined_requests_are_answered_in_order(tight: Running) -> None:
    """Two requests in one write get two responses, in the same order."""
    async with connect(tight.url) as (reader, writer):
        writer.write(post(PATH, BODY, "x-request-id: one") + post(PATH, BODY, "x-request-id: two"))

        ids = [(await read_response(reader)).headers["x-request-id"] for _ in range(2)]

        assert ids == ["one", "two"]
