"""A backend that works in silence is waited for, and its client is kept awake meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.fault import Fault
from tests.http.wire import NEVER_MS, ask, post, post_recorded, replicated, stream_errors, tokens, until
from tests.serving import Running, configuration, serving

WORKS = Fault(pace_ms=150, tokens=1)
IMPATIENT = {"timeouts": {"idle": 0.05, "comment": 0.04}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
SILENT: list[dict[str, Any]] = [
    {"reasoning": {"exclude": True}},
    {"include_reasoning": False},
    {"tools": [TOOL]},
    {"tools": [TOOL], "tool_choice": "required"},
    {"response_format": {"type": "json_object"}},
    {"structured_outputs": {"choice": ["a", "b"]}},
    {"guided_regex": "a+"},
    {"n": 2},
    {"stream_interval": 10_000},
]
TALKS: list[dict[str, Any]] = [
    {},
    {"include_reasoning": True},
    {"tools": [TOOL], "tool_choice": "none"},
    {"response_format": {"type": "text"}},
    {"n": 1, "structured_outputs": None},
]


async def test_work_in_silence(subtests: pytest.Subtests) -> None:
    """Where a thought or a tool call may be under way unseen, the idle timeout does not count."""
    async with replicated(1, **IMPATIENT) as (running, (backend,)):
        backend.default = WORKS
        for fields in SILENT:
            with subtests.test(fields=fields):
                answer = await post(running, ask(stream=True) | fields)
                assert stream_errors(answer.body) == []
                assert b"\n: keep-alive\n" in answer.body
                assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_silence_of_a_stream_that_shows_all(subtests: pytest.Subtests) -> None:
    """Where all tokens pass as they are generated, silence is a failure."""
    async with replicated(1, breaker={"failures": 99}, **IMPATIENT) as (running, (backend,)):
        backend.default = WORKS
        for fields in TALKS:
            with subtests.test(fields=fields):
                answer = await post(running, ask(stream=True) | fields)
                assert [error["code"] for error in stream_errors(answer.body)] == ["backend_timeout"]


async def test_thought_that_the_backend_never_shows(subtests: pytest.Subtests) -> None:
    """At a tier that thinks, silence before the first token is a thought; silence after it is none."""
    async with replicated(1, **IMPATIENT) as (running, (backend,)):
        for reasoning, codes in ((0, []), (2, ["backend_timeout"])):
            with subtests.test(reasoning=reasoning):
                backend.script(Fault(pace_ms=150, tokens=1, reasoning=reasoning))
                answer = await post(running, ask(model="tiny:long", stream=True))
                assert [error["code"] for error in stream_errors(answer.body)] == codes


async def test_death_in_silence(subtests: pytest.Subtests) -> None:
    """Silence ends with the connection, at the total timeout, or when the replica fails its health checks."""
    hidden = ask(stream=True, include_reasoning=False)
    timeouts = {"idle": 0.05, "total": 0.4}
    async with replicated(1, breaker={"failures": 99}, timeouts=timeouts) as (running, (backend,)):
        with subtests.test("cut"):
            backend.script(Fault(after=0, end="cut"))
            answer = await post(running, hidden)
            assert [error["code"] for error in stream_errors(answer.body)] == ["backend_disconnected"]
        with subtests.test("total"):
            backend.script(Fault(after=0, end="stall"))
            answer, record = await post_recorded(running, hidden)
            assert [error["code"] for error in stream_errors(answer.body)] == ["backend_timeout"]
            assert record.duration >= 0.4
    async with replicated(1, timeouts={"idle": 0.05}) as (running, (backend,)):
        with subtests.test("unhealthy"):
            backend.script(Fault(after=0, end="stall"))
            asked = asyncio.create_task(post(running, hidden))
            ((_, replica),) = running.gateway.backends()
            await until(lambda: replica.in_flight == 1)
            replica.healthy = False
            assert [error["code"] for error in stream_errors((await asked).body)] == ["backend_timeout"]


async def test_stream_that_begins_late(subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may hold back its answer, or sends nothing before all is generated, has no first byte to wait for.

    A replica that fails its health checks meanwhile is not waited for.
    """
    monkeypatch.setattr("gateway.upstream.deadline._LOOK", 0.01)
    async with replicated(1, timeouts={"first_byte": 0.02}) as (running, (backend,)):
        backend.default = Fault(first_byte_ms=40)
        for fields in [*SILENT, {"use_beam_search": True}, {"best_of": 2}]:
            with subtests.test(fields=fields):
                assert (await post(running, ask(stream=True) | fields)).status == 200
        with subtests.test("shows all"):
            assert (await post(running, ask(stream=True))).status == 504
        with subtests.test("unhealthy"):
            backend.default = Fault(delay_ms=NEVER_MS)
            asked = asyncio.create_task(post(running, ask(stream=True) | SILENT[0]))
            ((_, replica),) = running.gateway.backends()
            await until(lambda: replica.in_flight == 1)
            replica.healthy = False
            assert (await asked).code == "backend_timeout"


async def test_comments_between_events() -> None:
    """Comments stand before whole events, never before the response, and the official client skips them."""
    async with replicated(1, timeouts={"comment": 0.02}) as (running, (backend,)):
        backend.default = Fault(first_byte_ms=60, pace_ms=60, tokens=3, split=40)
        answer = await post(running, ask(stream=True))
        async with running.client() as client:
            stream = await client.chat.completions.create(**ask(), stream=True)
            said = [chunk.choices[0].delta.content async for chunk in stream]

    assert tokens(answer.body) == [" t0", " t1", " t2"]
    assert said[:4] == ["", " t0", " t1", " t2"]
    assert answer.body.startswith(b"data: ")
    for line in answer.body.splitlines():
        assert line == b"" or line == b": keep-alive" or line.startswith(b"data: ")
    assert b"\n: keep-alive\n" in answer.body
    assert b": keep-alive\n\n" not in answer.body


async def test_comments_are_off() -> None:
    """With 0 no comment is sent."""
    async with replicated(1, timeouts={"comment": 0, "idle": 0.2}) as (running, (backend,)):
        backend.default = Fault(pace_ms=130, tokens=1)
        assert b":keep" not in (await post(running, ask(stream=True))).body.replace(b" ", b"")


EVENT = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@contextlib.asynccontextmanager
async def scripted(*parts: bytes, stay: bool, **changes: Any) -> AsyncIterator[Running]:
    """A gateway in front of a backend that sends these chunks, 50 ms apart, and never the last one.

    stay: it leaves the connection open.
    """

    connections: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await reader.read()
            else:
                writer.write(HEAD)
                for part in parts:
                    writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                    await asyncio.sleep(0.05)
                if stay:
                    await reader.read(1 << 20)
                    await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with serving(configuration(url, **changes)) as running:
            yield running
        await asyncio.gather(*filter(None, connections))


@pytest.mark.parametrize("stay", [False, True])
@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data: [DONE]\n", b""])
async def test_connection_that_does_not_end_with_its_answer(
    stay: bool, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete answer ends well, whether the connection then breaks or stays open."""
    monkeypatch.setattr("gateway.pipeline.relay._LAST_WORDS", 0.0)
    event = b"data: " + json.dumps(EVENT).encode() + b"\n\n"
    settings = {"timeouts": {"comment": 0.05}, "breaker": {"failures": 1}}
    async with scripted(*filter(None, [event, end]), stay=stay, **settings) as running:
        answer, record = await post_recorded(running, ask(stream=True, include_reasoning=False))
        ((_, replica),) = running.gateway.backends()

    assert answer.body == event + b"data: [DONE]\n\n"
    assert record.error is None
    assert replica.breaker.opened_at is None


async def test_comment_after_an_event_with_an_id() -> None:
    """A client that remembers the id of an event takes a blank line for another event; it gets none."""
    event = b"id: 7\ndata: " + json.dumps(EVENT).encode() + b"\n\n"
    parts = [event, event, b"data: [DONE]\n\n"]
    async with (
        scripted(*parts, stay=False, timeouts={"comment": 0.01}) as running,
        running.client() as client,
    ):
        stream = await client.chat.completions.create(**ask(), stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["Hello", "Hello"]
