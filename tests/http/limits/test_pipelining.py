"""Several requests on one connection, and clients that leave while nothing is read from them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import BODY, PATH, connect, post, read_response
from tests.http.wire import NEVER_MS
from tests.serving import Running, configuration, serving

OFFER = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"


async def test_every_pipelined_request_gets_a_response(
    tight: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Hundreds of requests in one write, each with an offer to change the protocol, are served in order."""
    with caplog.at_level(logging.WARNING):
        async with connect(tight.url) as (reader, writer):
            writer.write(OFFER * 300 + post(PATH, BODY))
            assert {(await read_response(reader)).status for _ in range(301)} == {200}

    assert caplog.text == ""


async def test_only_one_request_is_begun(tight: Running, backend: Backend) -> None:
    """Requests behind a running one wait as bytes, which take less memory than requests."""
    backend.script(Fault(delay_ms=NEVER_MS))
    async with connect(tight.url) as (_, writer):
        writer.write(post(PATH, BODY) + OFFER * 1_000)
        await backend.wait_until(lambda b: b.in_flight)
        async with asyncio.timeout(5):
            while not tight.gateway.connections.held_bytes:
                await asyncio.sleep(0.005)

        assert (await tight.metrics())["thinkmeter_requests_in_flight"] == 2  # with the scrape


SIZES = [65_536 - 200, 65_536, 200_000, 900_000]


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_leaving_after_a_large_body_is_noticed(
    tight: Running, backend: Backend, subtests: pytest.Subtests, chunked: bool
) -> None:
    """Whatever the size of the prompt, the generation stops when its client leaves."""
    for count, size in enumerate(SIZES, 1):
        with subtests.test(size=size):
            backend.script(Fault(delay_ms=NEVER_MS))
            body = BODY[:-1] + b', "user": "%b"}' % (b"x" * (size - len(BODY) - 12))
            request = post(PATH, body)
            if chunked:
                head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
                request = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            async with connect(tight.url) as (_, writer):
                writer.write(request)
                await backend.wait_until(lambda b: b.in_flight)
            await backend.wait_until(lambda b, count=count: len(b.aborted) == count)


@pytest.mark.parametrize("behind", [1_000, 100_000])
async def test_leaving_behind_unread_requests_is_noticed(
    tight: Running, backend: Backend, behind: int
) -> None:
    """A client that sent more than is read of it, and then leaves, is noticed too."""
    backend.script(Fault(delay_ms=NEVER_MS))
    async with connect(tight.url) as (_, writer):
        writer.write(post(PATH, BODY))
        await backend.wait_until(lambda b: b.in_flight)
        writer.write(post(PATH, b" " * behind))
        writer.write_eof()
        await backend.wait_until(lambda b: b.aborted)


async def test_body_drained_after_an_early_response(backend: Backend) -> None:
    """After the rest of a refused body, the connection may be idle for longer than a head may take."""
    limits = {"body_bytes": 1_000, "header_seconds": 0.2}
    async with serving(configuration(backend.url, limits=limits)) as running, connect(running.url) as (r, w):
        w.write(post("/v1/nothing", b" " * 100_000)[:-50_000])
        assert (await read_response(r)).status == 404
        w.write(b" " * 50_000)
        await asyncio.sleep(0.3)
        w.write(OFFER)

        assert (await read_response(r)).status == 200


async def test_no_late_100(tight: Running) -> None:
    """A request that is answered before its body is wanted gets no 100, and none is sent for the next one."""
    head = b"GET /%b HTTP/1.1\r\nhost: x\r\n%b\r\n"
    async with connect(tight.url) as (reader, writer):
        writer.write(head % (b"healthz", b"expect: 100-continue\r\ncontent-length: 2\r\n"))
        assert (await read_response(reader)).status == 200
        writer.write(b"{}" + head % (b"console/events", b""))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    async with connect(tight.url) as (reader, writer):
        writer.write(head % (b"console/events", b"expect: 100-continue\r\ncontent-length: 2\r\n"))
        received = await reader.readuntil(b"data:")
        assert b"HTTP/1.1 100 " not in received.partition(b"HTTP/1.1 200 ")[2]
