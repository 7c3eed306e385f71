"""Limits on the size and time of a request body, and clients that disconnect in the middle of it."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest

from tests.fakes.backend import Backend
from tests.http.raw_http import BODY, MIB, PATH, assert_error, connect, exchange, post, read_response
from tests.serving import Running


async def test_declared_body_is_refused_before_it_is_sent(tight: Running) -> None:
    """A content-length of 50 MiB gets a 413 at once, before a byte of the body is sent."""
    head = post(PATH, b"").replace(b"content-length: 0", b"content-length: %d" % (50 * MIB))

    answer = await exchange(tight.url, head)

    assert_error(answer, 413, "request_too_large")


async def test_chunked_body_is_refused_as_soon_as_it_is_too_large(tight: Running) -> None:
    """50 MiB in chunks, without a declared length, get a 413 while most of it is still to be sent."""
    async with connect(tight.url) as (reader, writer):
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        sent = 0
        answer = asyncio.create_task(read_response(reader))

        writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        while not answer.done() and sent < 50 * MIB:
            try:
                writer.write(chunk)
                await writer.drain()
            except ConnectionError:
                break
            sent += 65_536

        assert_error(await answer, 413, "request_too_large")
        assert sent < 25 * MIB  # the limit, and what the buffers of the sockets hold


async def test_official_client_gets_413_for_a_large_body(running: Running) -> None:
    """A client that sends 50 MiB without waiting gets the 413 and not a broken connection."""
    async with running.client() as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.embeddings.create(model="tiny", input="x" * 50 * MIB)

    assert refused.value.status_code == 413


async def test_large_body_within_the_limit_is_served(running: Running, backend: Backend) -> None:
    """With default limits, a body of 20 MiB, such as an image, is forwarded whole."""
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20 * MIB}}]
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}

    answer = await exchange(running.url, post(PATH, json.dumps(body).encode()))

    assert answer.status == 200
    assert backend.requests[-1].json["messages"] == body["messages"]


@pytest.mark.parametrize("sent", [b"", b'{"model'], ids=["nothing", "a beginning"])
@pytest.mark.parametrize("path", [PATH, "/v1/completions", "/v1/embeddings", "/v1/route"])
async def test_slow_body(tight: Running, path: str, sent: bytes) -> None:
    """A body that does not arrive within `body_seconds` gets a 408, even if it never begins."""
    head = post(path, b"").replace(b"content-length: 0", b"content-length: 1000")

    answer = await exchange(tight.url, head + sent)

    assert_error(answer, 408, "request_timeout")
    assert answer.headers["connection"] == "close"


async def test_body_that_trickles(tight: Running) -> None:
    """A body that arrives a byte at a time gets a 408 too."""
    async with connect(tight.url) as (reader, writer):
        answer = asyncio.create_task(read_response(reader))

        writer.write(post(PATH, b"").replace(b"content-length: 0", b"content-length: 100000"))
        while not answer.done():
            writer.write(b" ")
            await asyncio.sleep(0.02)

        assert_error(await answer, 408, "request_timeout")


@pytest.mark.parametrize("path", [PATH, "/v1/route"])
async def test_client_disconnects_inside_its_body(tight: Running, path: str) -> None:
    """A client that disconnects in the middle of its body is recorded as `client_closed`."""
    async with connect(tight.url) as (_, writer):
        writer.write(post(path, BODY)[:-5])
        await writer.drain()
        writer.close()

        record = (await tight.recorded(1))[0]

        assert (path, "client_closed") == (record.route, record.error and record.error.code)


async def test_body_after_an_early_response(tight: Running) -> None:
    """The rest of a body that comes after the response is not taken for headers that are too large."""
    async with connect(tight.url) as (reader, writer):
        rest = b" " * (500_000)
        head = post("/v1/nothing", rest)[: -len(rest)]
        writer.write(head)
        assert (await read_response(reader)).status == 404

        writer.write(rest + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")

        assert (await read_response(reader)).status == 200


async def test_expect_continue(tight: Running) -> None:
    """A client that sends `Expect: 100-continue` gets a 100, or a 413 before it sends the body."""
    async with connect(tight.url) as (reader, writer):
        head, body = post(PATH, BODY, "expect: 100-continue")[: -len(BODY)], BODY
        writer.write(head)
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        assert (await read_response(reader)).status == 200

        large = post(PATH, b"", "expect: 100-continue").replace(
            b"content-length: 0", b"content-length: 9999999"
        )
        assert_error(await exchange(tight.url, large), 413, "request_too_large")
