"""Limits on the size and time of request headers, and connections that send nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import BODY, MIB, PATH, assert_error, closed, connect, exchange, post, read_response
from tests.serving import Running


@pytest.mark.parametrize(
    "headers",
    [[f"x-{i}: 1" for i in range(20)], [f"x-{i}: {'v' * 1000}" for i in range(9)], ["x-one: " + "v" * 9000]],
    ids=["count", "bytes in many", "bytes in one"],
)
async def test_header_flood(tight: Running, backend: Backend, headers: list[str]) -> None:
    """Too many headers, or too many bytes of them, get a 431, and nothing is forwarded."""
    answer = await exchange(tight.url, post(PATH, BODY, *headers))

    assert_error(answer, 431, "headers_too_large")
    assert answer.headers["connection"] == "close"
    assert PATH not in [request.path for request in backend.requests]


@pytest.mark.parametrize(
    "start",
    [b"GET /healthz HTTP/1.1\r\nx-endless: ", b"GET /healthz HTTP/1.1\r\nx-endless", b"GET /"],
    ids=["value", "name", "path"],
)
async def test_endless_line(tight: Running, start: bytes) -> None:
    """A line without an end gets a 431 soon after the limit, while the client is still sending."""
    async with connect(tight.url) as (reader, writer):
        answer = asyncio.create_task(read_response(reader))
        sent = 0

        writer.write(start)
        while not answer.done() and sent < 50 * MIB:
            try:
                writer.write(b"x" * 65_536)
                await writer.drain()
            except ConnectionError:
                break
            sent += 65_536

        assert_error(await answer, 431, "headers_too_large")
        assert sent < 25 * MIB


async def test_endless_line_behind_a_running_request(tight: Running, backend: Backend) -> None:
    """The limit applies to a pipelined request too, while the first response is still streaming."""
    backend.default = Fault(after=1, end="stall")
    async with connect(tight.url) as (reader, writer):
        streamed = json.dumps(json.loads(BODY) | {"stream": True}).encode()
        writer.write(post(PATH, streamed) + b"GET /healthz HTTP/1.1\r\nx-endless: ")
        await reader.readuntil(b"data: ")
        ended = asyncio.create_task(closed(reader))

        sent = 0
        while not ended.done() and sent < 50 * MIB:
            try:
                writer.write(b"x" * 65_536)
                await writer.drain()
            except ConnectionError:
                break
            sent += 65_536

        assert b"HTTP/1.1" not in await ended  # the running response is cut, and no other follows in it
        assert sent < 25 * MIB
        await backend.wait_until(lambda b: b.aborted)


async def test_slow_loris_headers(tight: Running) -> None:
    """Headers that arrive slowly get a 408 after `header_seconds`, however steadily they arrive."""
    async with connect(tight.url) as (reader, writer):
        answer = asyncio.create_task(read_response(reader))

        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n")
        while not answer.done():
            writer.write(b"x: 1")
            await asyncio.sleep(0.02)

        assert_error(await answer, 408, "request_timeout")


async def test_silent_connection_is_closed(tight: Running) -> None:
    """A connection on which nothing is sent gets a 408 and is closed."""
    async with connect(tight.url) as (reader, _):
        assert b"408" in await closed(reader)


async def test_connection_kept_alive_with_line_ends_is_closed(tight: Running) -> None:
    """Blank lines after a response are not a request, so the connection closes after `header_seconds`."""
    async with connect(tight.url) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await read_response(reader)).status == 200

        writer.write(b"\r\n")

        await closed(reader)


async def test_many_slow_connections_do_not_stop_others(tight: Running) -> None:
    """While 200 connections each hold half a request, another request is served."""
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connect(tight.url)) for _ in range(200)]
        for _, writer in slow:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx: ")

        async with asyncio.timeout(5):
            assert (await tight.chat()).status == 200

        for reader, _ in slow:
            await closed(reader)
