"""A client that does not read its response holds back neither its backend nor tokens, in bounded memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.errors import ClientClosed
from gateway.http.outbox import Outbox, UnreadMemory
from tests.http.raw_http import read_response
from tests.http.test_large_responses import MB, STREAM, scripted
from tests.http.wire import ask, connection, slots, until, wired
from tests.redis import RealRedis, used
from tests.serving import Running

CHUNK = {"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": "y" * 2_000}]}
USAGE = {"prompt_tokens": 1, "completion_tokens": 50, "total_tokens": 51}
EVENT = b"data: " + json.dumps(CHUNK | {"usage": USAGE}).encode() + b"\n\n"
LAST = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
COUNT = 7_000
"""Events of a stream of some 15 MB, more than the sockets hold."""


@contextlib.asynccontextmanager
async def unread(running: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client of a stream that reads nothing until `resume_reading`."""
    async with connection(running) as (reader, writer):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(wired(ask(stream=True), "/v1/chat/completions", "connection: close"))
        yield reader, writer
        writer.transport.abort()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Now read the response; returns its body."""
    reader._transport.resume_reading()  # type: ignore[attr-defined]
    return (await read_response(reader)).body


@pytest.mark.usefixtures("patient_redis")
async def test_finished_stream_is_settled_before_it_is_read(redis_server: RealRedis) -> None:
    """What the backend has used is settled at its end, and the client still gets every byte later."""
    redis_server.client().flushall()
    budget = {"name": "b0", "window": "1m", "scope": "global", "tokens": 10_000}
    sections: dict[str, Any] = {"budgets": [budget], "redis": {"url": redis_server.url}}
    async with (
        scripted(STREAM, each=[*[EVENT] * COUNT, LAST], **sections) as (running, _),
        unread(running) as (reader, _writer),
    ):
        await until(lambda: slots(running) == [1])
        await until(lambda: slots(running) == [0])
        assert await used(running) == (50, 0)
        assert not running.records

        body = await read_all(reader)
        (record,) = await running.recorded(1)

    assert body.count(b'"content": "x"') == COUNT
    assert body.endswith(b"data: [DONE]\n\n")
    assert record.error is None
    assert running.gateway._memory.unread.used == 0


async def test_stream_that_breaks_off_unread_ends_in_its_error() -> None:
    """The error event comes after everything that the client had not read."""
    async with (
        scripted(STREAM, each=[EVENT] * COUNT) as (running, _),
        unread(running) as (reader, _writer),
    ):
        await until(lambda: slots(running) == [1])
        await until(lambda: slots(running) == [0])
        body = await read_all(reader)

    assert body.count(b'"content": "x"') == COUNT
    assert b"backend_disconnected" in body.rstrip().rpartition(b"\n")[2]


async def test_client_that_leaves_gives_back_what_it_had_not_read() -> None:
    """Memory of unread events is free when the client disconnects, during or after the stream."""
    for ends in (True, False):
        events = [EVENT] * (COUNT if ends else 3 * COUNT)
        async with scripted(STREAM, each=[*events, LAST]) as (running, _):
            async with unread(running) as (_reader, writer):
                await until(lambda: running.gateway._memory.unread.used > MB)
                writer.transport.abort()
                (record,) = await running.recorded(1)
            assert record.error
            assert record.error.code == "client_closed"
            await until(lambda: running.gateway._memory.unread.used == 0 and slots(running) == [0])


async def test_unread_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room the backend waits, and a client that takes nothing is disconnected."""
    monkeypatch.setattr("gateway.http.exchange._PATIENCE", 0.2)
    parts = [EVENT] * COUNT * 2
    async with (
        scripted(STREAM, each=[*parts, LAST], limits={"unread_bytes": MB}) as (running, backend),
        unread(running),
    ):
        (record,) = await running.recorded(1)
        assert record.error
        assert record.error.message == "The client reads too slowly"
        assert backend.sent < len(EVENT) * len(parts) - MB
        assert slots(running) == [0]


class Client:
    """A client that reads nothing until `read`."""

    def __init__(self) -> None:
        self.paused = True
        self.sent: list[bytes] = []
        self._callbacks: list[Callable[[], object]] = []

    def send_now(self, block: bytes) -> None:
        self.sent.append(block)

    def call_when_reading(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)

    def read(self) -> None:
        self.paused = False
        for callback in self._callbacks:
            callback()


async def test_a_stream_may_always_leave_a_little_unread() -> None:
    """Others that have taken all memory delay no stream that is only a little behind."""
    memory = UnreadMemory(1000)
    memory.used = 2000
    client = Client()

    outbox = Outbox(client, memory, patience=0.01)
    assert outbox.put(b"a" * 1000)
    assert outbox.put(b"b" * 1000)
    assert not outbox.put(b"c" * 300_000)
    with pytest.raises(ClientClosed):
        await outbox.room()
    client.read()
    await outbox.drain(60)

    assert [block[:1] for block in client.sent] == [b"a", b"b", b"c"]
    assert (memory.used, outbox.empty) == (2000, True)
