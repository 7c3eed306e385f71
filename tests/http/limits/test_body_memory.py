"""The memory of all large request bodies is bounded, and given back when the response begins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from gateway.http.body_memory import BodyMemory
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.error_cases import ROUTE
from tests.http.raw_http import BODY, MIB, PATH, connect, exchange, post, read_response
from tests.http.wire import NEVER_MS, ask, asked, connection, until, wired
from tests.serving import Running, configuration, serving

TIGHT = {"bodies_bytes": MIB, "body_seconds": 0.3}


def large(size: int, **fields: object) -> bytes:
    return json.dumps(ask("x" * size, **fields)).encode()


def memory(running: Running) -> BodyMemory:
    return running.gateway._memory.bodies


async def test_bodies_beyond_the_limit_wait_unread(backend: Backend) -> None:
    """A body that finds no room waits, however long, and is served afterwards; small ones are not delayed."""
    backend.script(Fault(delay_ms=NEVER_MS))
    async with serving(configuration(backend.url, limits=TIGHT)) as running:
        async with connection(running) as (_, writer):
            writer.write(post(PATH, large(2 * MIB)))
            await until(lambda: asked(backend))
            waiting = asyncio.create_task(exchange(running.url, post(PATH, large(2 * MIB))))
            await until(lambda: memory(running)._waiting)
            held = memory(running).used
            for _ in range(3):
                assert (await exchange(running.url, post(PATH, BODY))).status == 200
                await asyncio.sleep(0.15)

            assert not waiting.done()
            assert memory(running).used == held < 3 * MIB
        assert (await waiting).status == 200
        await until(lambda: memory(running).used == 0)


async def test_incomplete_bodies_do_not_block_each_other(backend: Backend) -> None:
    """Bodies that arrive at the same time and together exceed the limit are all served."""
    async with serving(configuration(backend.url, limits=TIGHT | {"body_seconds": 20})) as running:
        answers = await asyncio.gather(
            *(exchange(running.url, post(PATH, large(2 * MIB))) for _ in range(4)),
            exchange(running.url, post(ROUTE, large(2 * MIB))),
        )

        assert [answer.status for answer in answers] == [200] * 5
        await until(lambda: memory(running).used == 0)


async def test_client_that_leaves_gives_back_its_room(backend: Backend) -> None:
    """Memory is free again when a client disconnects inside its body, or takes too long."""
    async with serving(configuration(backend.url, limits=TIGHT)) as running:
        for leaves in (True, False):
            async with connect(running.url) as (reader, writer):
                writer.write(post(PATH, large(MIB))[:-100])
                await until(lambda: memory(running).used > MIB // 2)
                if not leaves:
                    assert (await read_response(reader)).status == 408
            await until(lambda: memory(running).used == 0)


async def test_body_in_tiny_chunks(running: Running, backend: Backend) -> None:
    """A body that arrives in chunks of a byte each is read as one."""
    chunks = b"".join(b"1\r\n" + BODY[at : at + 1] + b"\r\n" for at in range(len(BODY)))
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()

    assert (await exchange(running.url, head, chunks, b"0\r\n\r\n")).status == 200
    assert asked(backend)[0].json["messages"] == json.loads(BODY)["messages"]


@contextlib.asynccontextmanager
async def begun_streams() -> AsyncIterator[str]:
    """A backend that reads a request without keeping it, and sends one event and no more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                if head.startswith(b"get"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    continue
                left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                while left:
                    left -= len(await reader.read(min(left, 65_536)))
                kind = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                writer.write(kind + b'data: {"choices":[]}\n\n')
                await reader.read(1)
                break
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("text", ["x" * 2_000_000, "é" * 300_000], ids=["plain", "escaped"])
async def test_body_is_not_held_while_the_response_streams(text: str) -> None:
    """Past the first event no attempt can follow, so nothing of the body is kept."""
    body = ask(text, stream=True)
    async with (
        begun_streams() as url,
        serving(configuration(url)) as running,
        connection(running) as (reader, writer),
    ):
        sent = wired(body)
        tracemalloc.start()
        try:
            for start in range(0, len(sent), MIB):
                writer.write(sent[start : start + MIB])
                await writer.drain()
            await reader.readuntil(b"\r\n\r\n")
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert kept < len(sent) / 4
    assert peak > len(sent)  # otherwise nothing was measured
