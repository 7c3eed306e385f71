"""Clients that send ahead share the event loop with those that wait for their responses."""

from __future__ import annotations

import asyncio

from gateway.http.body_framing import ChunkedBody
from gateway.http.turns import Turns
from tests.fakes.backend import Backend
from tests.serving import Running


async def test_a_few_in_each_turn() -> None:
    """However many wait, only a few go on before others are served, and all go on in their order."""
    loop, turns = asyncio.get_running_loop(), Turns()
    done: list[int] = []
    for number in range(10):
        turns.wait(lambda number=number: done.append(number), loop.call_soon)  # type: ignore[misc]
    seen = []
    while len(done) < 10:
        await asyncio.sleep(0)
        seen.append(len(done))

    assert done == list(range(10))
    assert seen == [4, 8, 10]


async def test_a_failure_stops_nobody_else() -> None:
    """An error of one connection is reported, and the others go on."""
    loop, turns = asyncio.get_running_loop(), Turns()
    reported: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    done = asyncio.Event()
    turns.wait(lambda: [][0], loop.call_soon)  # type: ignore[misc]
    turns.wait(done.set, loop.call_soon)
    async with asyncio.timeout(5):
        await done.wait()

    assert [type(error) for error in reported] == [IndexError]


def test_a_crowded_body_is_read_in_parts() -> None:
    """Very many small chunks are not read at once, and none of their bytes is lost."""
    data = b"1\r\nx\r\n" * 1_000 + b"0\r\n\r\n"
    body, parts, interruptions = ChunkedBody(1_000), [], 0
    while not body.done:
        part, used = body.take(data)
        parts.append(part)
        data = data[used:]
        interruptions += body.interrupted

    assert b"".join(parts) == b"x" * 1_000
    assert interruptions == 3
    assert not data


async def test_small_chunks_at_a_port(running: Running, backend: Backend) -> None:
    """A request in chunks of one byte reaches the backend, and so does the one pipelined behind it."""
    body = b'{"model":"tiny","messages":[{"role":"user","content":"' + b"a" * 1_500 + b'"}]}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    port = int(running.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"\r\n" + chunks + head + b"Connection: close\r\n\r\n" + chunks)
    received = await asyncio.wait_for(reader.read(), 20)
    writer.close()

    assert received.count(b"HTTP/1.1 200 OK") == 2
    asked = [request.json for request in backend.requests if request.method == "POST"]
    assert [len(one["messages"][0]["content"]) for one in asked] == [1_500, 1_500]
