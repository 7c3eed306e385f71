"""What a client may send: sizes and times of headers and bodies, and what cannot be parsed at all."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import openai
import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import assert_error, closed, connect, exchange, post, read_answer
from tests.serving import Running, configuration, serving

PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}).encode()
MIB = 2**20
LIMITS = {
    "body_bytes": MIB,
    "body_seconds": 0.3,
    "header_seconds": 0.3,
    "header_bytes": 8192,
    "header_count": 16,
}


@pytest.fixture
async def tight(backend: Backend) -> AsyncIterator[Running]:
    """A gateway with small limits; in the end every slot must be free and every port still served."""
    async with serving(configuration(backend.url, limits=LIMITS)) as running:
        yield running
        backend.clear()
        assert (await running.chat()).status == 200
        assert (await running.metrics())["thinkmeter_requests_in_flight"] == 1  # the scrape itself


async def test_declared_body_is_refused_before_it_is_sent(tight: Running) -> None:
    """A content-length of 50 MiB is answered with 413 at once, without a byte of the body."""
    head = post(PATH, b"").replace(b"content-length: 0", b"content-length: %d" % (50 * MIB))

    answer = await exchange(tight.url, head)

    assert_error(answer, 413, "request_too_large")


async def test_chunked_body_is_refused_as_soon_as_it_is_too_large(tight: Running) -> None:
    """50 MiB in chunks, without a declared length: 413 while most of it is still at the client."""
    async with connect(tight.url) as (reader, writer):
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        sent = 0
        answer = asyncio.create_task(read_answer(reader))

        writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        while not answer.done() and sent < 50 * MIB:
            try:
                writer.write(chunk)
                await writer.drain()
            except ConnectionError:
                break
            sent += 65_536

        assert_error(await answer, 413, "request_too_large")
        assert sent < 25 * MIB  # what the sockets' buffers hold comes on top of the limit


async def test_official_client_is_told_of_its_large_body(running: Running) -> None:
    """A client that sends 50 MiB blindly gets the 413 and not a broken connection."""
    async with running.client() as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.embeddings.create(model="tiny", input="x" * 50 * MIB)

    assert refused.value.status_code == 413


async def test_large_body_within_the_limit_is_served(running: Running, backend: Backend) -> None:
    """With default limits a body of 20 MiB (images) is forwarded whole."""
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20 * MIB}}]
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}

    answer = await exchange(running.url, post(PATH, json.dumps(body).encode()))

    assert answer.status == 200
    assert backend.requests[-1].json["messages"] == body["messages"]


@pytest.mark.parametrize(
    "headers",
    [[f"x-{i}: 1" for i in range(20)], [f"x-{i}: {'v' * 1000}" for i in range(9)], ["x-one: " + "v" * 9000]],
    ids=["count", "bytes in many", "bytes in one"],
)
async def test_header_flood(tight: Running, backend: Backend, headers: list[str]) -> None:
    """Too many header lines, or too many bytes of them: 431, and nothing is forwarded."""
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
    """A line without an end is cut soon after the limit, however much the client has to say."""
    async with connect(tight.url) as (reader, writer):
        answer = asyncio.create_task(read_answer(reader))
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
    """The limit holds for a pipelined request too, while the answer to the first one is still running."""
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

        assert b"HTTP/1.1" not in await ended  # an answer under way is cut, never continued with another
        assert sent < 25 * MIB
        await backend.wait_until(lambda b: b.aborted)


async def test_slow_loris_headers(tight: Running) -> None:
    """Headers that trickle are given up after header_seconds, however steadily they trickle."""
    async with connect(tight.url) as (reader, writer):
        answer = asyncio.create_task(read_answer(reader))

        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n")
        while not answer.done():
            writer.write(b"x: 1")
            await asyncio.sleep(0.02)

        assert_error(await answer, 408, "request_timeout")


async def test_silent_connection_is_closed(tight: Running) -> None:
    """A connection on which nothing is ever sent does not stay open."""
    async with connect(tight.url) as (reader, _):
        assert b"408" in await closed(reader)


async def test_connection_kept_alive_with_line_ends_is_closed(tight: Running) -> None:
    """After an answer, blank lines are no request: they do not keep the connection beyond header_seconds."""
    async with connect(tight.url) as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await read_answer(reader)).status == 200

        writer.write(b"\r\n")

        await closed(reader)


@pytest.mark.parametrize("sent", [b"", b'{"model'], ids=["nothing", "a beginning"])
@pytest.mark.parametrize("path", [PATH, "/v1/completions", "/v1/embeddings", "/v1/route"])
async def test_slow_body(tight: Running, path: str, sent: bytes) -> None:
    """A body that does not arrive within body_seconds is given up with 408, even if it never begins."""
    head = post(path, b"").replace(b"content-length: 0", b"content-length: 1000")

    answer = await exchange(tight.url, head + sent)

    assert_error(answer, 408, "request_timeout")
    assert answer.headers["connection"] == "close"


async def test_body_that_trickles(tight: Running) -> None:
    """A body that keeps coming, a byte at a time, is given up too."""
    async with connect(tight.url) as (reader, writer):
        answer = asyncio.create_task(read_answer(reader))

        writer.write(post(PATH, b"").replace(b"content-length: 0", b"content-length: 100000"))
        while not answer.done():
            writer.write(b" ")
            await asyncio.sleep(0.02)

        assert_error(await answer, 408, "request_timeout")


@pytest.mark.parametrize("path", [PATH, "/v1/route"])
async def test_client_leaves_inside_its_body(tight: Running, path: str) -> None:
    """A client that goes away in the middle of its body leaves nothing behind."""
    async with connect(tight.url) as (_, writer):
        writer.write(post(path, BODY)[:-5])
        await writer.drain()
        writer.close()

        record = (await tight.recorded(1))[0]

        assert (path, "client_closed") == (record.route, record.error and record.error.code)


async def test_body_after_an_early_answer(tight: Running) -> None:
    """An answer given before the body was read does not make the rest of the body a header flood."""
    async with connect(tight.url) as (reader, writer):
        rest = b" " * (500_000)
        head = post("/v1/nothing", rest)[: -len(rest)]
        writer.write(head)
        assert (await read_answer(reader)).status == 404

        writer.write(rest + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")

        assert (await read_answer(reader)).status == 200


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
    """Bytes that are no HTTP request are answered with 400 in OpenAI's shape, then the connection closes."""
    async with connect(tight.url) as (reader, writer):
        writer.write(line)

        answer = await read_answer(reader)

        assert 400 <= answer.status < 500
        assert_error(answer, answer.status, answer.code)
        if answer.code != "route_not_found":
            assert answer.headers["connection"] == "close"
            assert await closed(reader) == b""


async def test_broken_chunk_ends_the_request(tight: Running) -> None:
    """A chunk whose size is no number is a bad request; the request behind it is over."""
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()

    answer = await exchange(tight.url, head + b"zz\r\n")

    assert_error(answer, 400, "invalid_value")


async def test_garbage_behind_a_running_stream(tight: Running, backend: Backend) -> None:
    """Garbage sent while an answer is streaming ends the connection and puts nothing into the answer."""
    backend.default = Fault(after=2, end="stall")
    async with connect(tight.url) as (reader, writer):
        streamed = json.dumps(json.loads(BODY) | {"stream": True}).encode()
        writer.write(post(PATH, streamed))
        await reader.readuntil(b"data: ")

        writer.write(b"\x00garbage\r\n\r\n")

        assert b"HTTP/1.1" not in await closed(reader)
        await backend.wait_until(lambda b: b.aborted)


async def test_pipelining_client_leaves(tight: Running, backend: Backend) -> None:
    """A client that leaves stops its running request even when another waits behind it."""
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
    """An offer to change the protocol is ignored: body, next request and all are served as HTTP/1.1."""
    offer = ("connection: upgrade, http2-settings", f"upgrade: {upgrade}", "http2-settings: AAMAAABk")
    chunked = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n" + "\r\n".join(offer)
    with caplog.at_level(logging.WARNING):
        async with connect(tight.url) as (reader, writer):
            for _ in range(2):
                writer.write(post(PATH, BODY, *offer))
                assert (await read_answer(reader)).status == 200
            request = post(PATH, BODY, *offer)
            writer.write(request[:-20])
            await asyncio.sleep(0.02)
            writer.write(request[-20:])
            assert (await read_answer(reader)).status == 200
            writer.write(chunked.encode() + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
            assert (await read_answer(reader)).status == 200
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + "\r\n".join(offer).encode() + b"\r\n\r\n")
            assert (await read_answer(reader)).status == 200

    assert caplog.text == ""


async def test_pipelined_requests_are_answered_in_order(tight: Running) -> None:
    """Two requests in one write get two answers, in their order."""
    async with connect(tight.url) as (reader, writer):
        writer.write(post(PATH, BODY, "x-request-id: one") + post(PATH, BODY, "x-request-id: two"))

        ids = [(await read_answer(reader)).headers["x-request-id"] for _ in range(2)]

        assert ids == ["one", "two"]


async def test_expect_continue(tight: Running) -> None:
    """A client that asks before sending its body is told to go on, or told 413 before it sends any."""
    async with connect(tight.url) as (reader, writer):
        head, body = post(PATH, BODY, "expect: 100-continue")[: -len(BODY)], BODY
        writer.write(head)
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        assert (await read_answer(reader)).status == 200

        large = post(PATH, b"", "expect: 100-continue").replace(
            b"content-length: 0", b"content-length: 9999999"
        )
        assert_error(await exchange(tight.url, large), 413, "request_too_large")


async def test_many_slow_connections_do_not_stop_others(tight: Running) -> None:
    """Two hundred connections that hold half a request leave room for an honest one."""
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connect(tight.url)) for _ in range(200)]
        for _, writer in slow:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nx: ")

        async with asyncio.timeout(5):
            assert (await tight.chat()).status == 200

        for reader, _ in slow:
            await closed(reader)
