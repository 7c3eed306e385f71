"""Bounds on the number of connections, and on what incomplete requests hold over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from gateway.http.connections import Connections, backlog, default_connections
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import BODY, PATH, assert_error, closed, connect, post, read_response
from tests.serving import Running, configuration, serving

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


class Fake:
    """A connection that notes when it is closed."""

    def __init__(self, peer_host: str = "192.0.2.1") -> None:
        self.peer_host = peer_host
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


def test_the_one_that_waited_longest_makes_room() -> None:
    """First goes the oldest without a request, then the longest idle, never one that is served."""
    refused: list[None] = []
    bounds = Connections(4, None, 1000, on_refused=lambda: refused.append(None))
    new, served, idle, newer = fakes = [Fake() for _ in range(4)]
    assert all(bounds.add(fake) for fake in fakes)
    for fake in (served, idle):
        bounds.begin(fake)
    bounds.end(idle)

    for expected in (new, newer, idle):
        fake = Fake()
        assert bounds.add(fake)
        bounds.begin(fake)
        assert expected.evicted

    assert not bounds.add(Fake())
    assert not served.evicted
    assert (len(bounds), len(refused)) == (4, 4)


def test_connections_of_one_address() -> None:
    """With a bound for each address, others are not affected, and a place becomes free again."""
    bounds = Connections(100, 2, 1000)
    first, second = Fake("a"), Fake("a")
    assert bounds.add(first) and bounds.add(second)

    assert not bounds.add(Fake("a"))
    assert bounds.add(Fake("b"))
    bounds.remove(first)
    assert bounds.add(Fake("a"))


def test_sum_of_incomplete_requests() -> None:
    """When all together hold too much, the one that began first is closed."""
    bounds = Connections(100, None, 1000)
    fakes = [Fake() for _ in range(5)]
    for fake in fakes:
        bounds.add(fake)
        bounds.hold(fake, 200)
    assert not any(fake.evicted for fake in fakes)

    bounds.hold(fakes[4], 350)

    assert [fake.evicted for fake in fakes] == [True, False, False, False, False]
    assert bounds.held_bytes == 950
    for fake in fakes:
        bounds.remove(fake)
    assert (bounds.held_bytes, len(bounds)) == (0, 0)


@pytest.mark.parametrize("descriptors", [128, 256, 1024, 65_536, 1_048_576])
def test_descriptors_stay_free(descriptors: int) -> None:
    """Connections, as many to backends, and those that wait to be accepted leave some over."""
    used = 2 * default_connections(descriptors) + backlog(descriptors)

    assert used <= descriptors - 64


@pytest.fixture
async def narrow(backend: Backend) -> AsyncIterator[Running]:
    """A gateway with room for 16 connections and 64 KiB of incomplete requests."""
    limits = {"connections": 16, "unfinished_bytes": 65_536}
    async with serving(configuration(backend.url, limits=limits)) as running:
        yield running


async def refused(running: Running) -> float:
    """How many connections were closed because a bound was reached."""
    return (await running.metrics())["thinkmeter_connections_refused_total"]


async def test_idle_connections_make_room_for_those_who_work(narrow: Running, backend: Backend) -> None:
    """A flood of silent connections cuts no stream and no connection kept alive, and keeps nobody out."""
    backend.script(Fault(after=1, end="stall"))
    async with AsyncExitStack() as stack:
        streaming, stream = await stack.enter_async_context(connect(narrow.url))
        stream.write(post(PATH, BODY[:-1] + b', "stream": true}'))
        await streaming.readuntil(b"data: ")
        reader, writer = await stack.enter_async_context(connect(narrow.url))
        writer.write(GET)
        assert (await read_response(reader)).status == 200

        silent = [await stack.enter_async_context(connect(narrow.url)) for _ in range(40)]
        fresh_reader, fresh = await stack.enter_async_context(connect(narrow.url))
        fresh.write(GET)
        assert (await read_response(fresh_reader)).status == 200

        assert await closed(silent[0][0]) == b""
        writer.write(GET)
        assert (await read_response(reader)).status == 200
        assert not streaming.at_eof()
        metrics = await narrow.metrics()
        assert metrics["thinkmeter_connections"] == 16
        assert metrics["thinkmeter_connections_refused_total"] >= 43 - 16


async def test_nobody_is_cut_for_another(narrow: Running, backend: Backend) -> None:
    """When every connection is being served, a further one gets a 503."""
    backend.default = Fault(after=1, end="stall")
    async with AsyncExitStack() as stack:
        for _ in range(16):
            reader, writer = await stack.enter_async_context(connect(narrow.url))
            writer.write(post(PATH, BODY[:-1] + b', "stream": true}'))
            await reader.readuntil(b"data: ")

        reader, _ = await stack.enter_async_context(connect(narrow.url))
        answer = await read_response(reader)

        assert_error(answer, 503, "too_many_connections")
        assert answer.headers["retry-after"] == "1"


async def test_unfinished_heads_are_bounded_together(narrow: Running) -> None:
    """Ten heads of 20 kB without an end hold no more than the bound, and a whole request is served."""
    async with AsyncExitStack() as stack:
        for _ in range(10):
            _, writer = await stack.enter_async_context(connect(narrow.url))
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 20_000)
            await writer.drain()
        async with asyncio.timeout(5):
            while await refused(narrow) < 7:
                await asyncio.sleep(0.005)
        assert narrow.gateway.connections.held_bytes <= 65_536
        assert (await narrow.chat()).status == 200

    async with asyncio.timeout(5):
        while narrow.gateway.connections.held_bytes:
            await asyncio.sleep(0.005)
