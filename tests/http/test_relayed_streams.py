"""Streams pass whole, wherever the network cuts them and wherever the backend breaks off."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.http.test_large_responses import Scripted, scripted
from tests.http.wire import ask, post, post_recorded, stream_errors
from tests.making import USAGE

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ASKED = ask(stream=True, stream_options={"include_usage": True})
UNBREAKABLE = {"breaker": {"failures": 1_000}}


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c"} | fields, separators=(",", ":")).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


TEXTS = (" a", " b", '"', "\\", "data: [DONE]", " c", "", " é", " d", "\r\n0\r\n\r\n", " e", " f")
EVENTS = [*map(delta, TEXTS), delta("", "stop"), event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]
BODY = b"".join(EVENTS)


def framed(parts: list[bytes]) -> bytes:
    """A response whose body has these chunks."""
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


class Slow(Scripted):
    """Lets the gateway read each part before the next one is sent."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        drain = writer.drain

        async def drained() -> None:
            await drain()
            await asyncio.sleep(0)

        writer.drain = drained  # type: ignore[method-assign]
        await super().serve(reader, writer)


async def test_any_chunks_in_any_packets() -> None:
    """Chunks of any size in packets of any size make the same stream, and its usage is read."""
    async with scripted() as (running, backend):
        backend.__class__ = Slow
        for chunk, packet in ((1, 10_000), (7, 50), (64, 200), (100, 17), (10_000, 50), (10_000, 10_000)):
            backend.parts = cut(framed(cut(BODY, chunk)), packet)
            answer, record = await post_recorded(
                running, ask(stream=True, stream_options={"include_usage": True})
            )

            assert answer.body == BODY
            assert (record.usage.completion, record.usage.source) == (42, "backend")
            assert record.error is None
        backend.parts = [framed(EVENTS)]
        assert (await post(running, ask(stream=True))).body == BODY.replace(EVENTS[-2], b"")


async def test_cut_anywhere() -> None:
    """Wherever the backend breaks off, the client gets whole events and then one error event."""
    whole = framed(EVENTS)
    async with scripted(**UNBREAKABLE) as (running, backend):
        for end in range(len(HEAD) + len(EVENTS[0]) + 10, len(whole) - len(EVENTS[-2]) - 40, 41):
            backend.parts = [whole[:end]]
            answer, record = await post_recorded(running, ASKED | {"user": str(end)})
            assert answer.status == 200
            said, _, last = answer.body.rpartition(b"data: ")
            if record.error is None:  # the answer was complete
                assert BODY.startswith(said)
                assert last == b"[DONE]\n\n"
                continue
            assert BODY.startswith(said)
            assert said in {b"".join(EVENTS[:count]) for count in range(1, len(EVENTS))}
            assert [error["code"] for error in stream_errors(answer.body)] == ["backend_disconnected"]


async def test_much_at_once() -> None:
    """A stream that arrives all at once passes whole, though others have their turn in between."""
    events = [*[delta(f" {number} " + "x" * 400) for number in range(3_000)], *EVENTS[-3:]]
    async with scripted(framed(events)) as (running, _):
        answer = await post(running, ASKED)
    assert answer.body == b"".join(events)


async def test_reading_that_fails(monkeypatch: Any) -> None:
    """An error in the relay ends its own request with an error event, and not the connections."""

    def fails(*_: Any) -> bytes:
        raise RuntimeError("a bug")

    async with scripted(framed(EVENTS[:3]), framed(EVENTS[3:])) as (running, backend):
        with monkeypatch.context() as patch:
            patch.setattr("gateway.openai_api.stream.StreamReader.feed", fails)
            answer = await post(running, ask(stream=True))
        assert answer.status == 500
        backend.parts = [framed(EVENTS)]
        assert (await post(running, ask(stream=True))).status == 200
