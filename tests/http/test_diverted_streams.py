"""Streams whose events pass in C: the same bytes and counts, whatever ends that, and no socket is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.openai_api.event_stream import KEEP_ALIVE
from gateway.upstream import arriving, lane
from gateway.upstream.lane import Passage
from tests.fakes.fault import Fault
from tests.http.test_large_responses import Scripted
from tests.http.test_relayed_streams import ASKED, HEAD, delta, event, framed
from tests.http.wire import (
    CHAT,
    ask,
    connection,
    distinct,
    post,
    post_recorded,
    replicated,
    stream_errors,
    tokens,
    until,
    wired,
)
from tests.making import USAGE
from tests.serving import Running, configuration, serving

ENDS = [event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]
FIRST = [delta("") + delta(" first")] * 4
"""After these, what repeats them passes in C."""


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Paused(Scripted):
    """Lets the gateway pass on each part before the next one is sent. An empty part is a silence."""

    stays = False
    """The connection stays open after the last part, until the gateway closes it."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST"):
                writer.write(self.healthy)
            for part in self.parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.002 if part else 0.2)
            if self.stays:
                await reader.read()
        writer.close()


@asynccontextmanager
async def paused(**changes: Any) -> AsyncIterator[tuple[Running, Paused]]:
    backend = Paused([])
    listener = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with serving(configuration(url, **changes)) as running:
            yield running, backend


def chunk(*events: bytes) -> bytes:
    body = b"".join(events)
    return b"%x\r\n%b\r\n" % (len(body), body)


def cuts(chance: random.Random, whole: bytes, count: int) -> Iterator[bytes]:
    places = sorted(chance.sample(range(1, len(whole)), count))
    for begin, end in zip([0, *places], [*places, len(whole)], strict=True):
        yield whole[begin:end]


async def test_any_packets(passages: list[Passage]) -> None:
    """Wherever the network cuts a stream, and whatever is among its repetitions, the same bytes come out."""
    chance = random.Random(7)
    odd = [delta("<"), delta("\\"), b": a comment\n\n", event(choices=[]), delta(" x" * 900), delta("é")]
    async with paused() as (running, backend):
        for _ in range(8):
            events = [delta(f" {number}") for number in range(40)]
            for place in chance.sample(range(40), 3):
                events.insert(place, chance.choice(odd))
            events = [*FIRST, *events, delta("", "stop"), *ENDS]
            whole = framed([b"".join(events[at : at + 2]) for at in range(0, len(events), 2)])
            body = whole.removeprefix(HEAD)
            backend.parts = [HEAD, *cuts(chance, body, 20)]
            answer, record = await post_recorded(running, distinct(**ASKED))

            assert answer.body == b"".join(events)
            assert (record.usage.completion, record.error) == (42, None)
    assert sum(passage.blocks for passage in passages) > 3


@pytest.mark.parametrize("end", ["cut", "reset", "clean", "stall", "error"])
async def test_ends_of_the_backend(
    passages: list[Passage], monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    """A stream that breaks off ends for the client as it would without C, with the same tokens counted."""
    ways = {"error": "broken"} if end == "error" else {"end": end}
    seen = []
    async with replicated(1, timeouts={"idle": 0.3}, breaker={"failures": 1_000}) as (running, (backend,)):
        for direct in (False, True):
            if direct:
                monkeypatch.setattr(arriving, "enter", lambda *_: None)
            backend.script(Fault(tokens=30, reasoning=0, after=25, pace_ms=1, **ways))
            answer, record = await post_recorded(running, distinct(stream=True))
            codes = [error["code"] for error in stream_errors(answer.body)]
            usage = record.usage
            seen.append((tokens(answer.body), codes, usage.completion, usage.source, usage.complete))
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 25
    assert passages


async def test_client_that_leaves(passages: list[Passage]) -> None:
    """The backend stops, and the sockets are closed, when a client leaves while its stream passes in C."""
    async with replicated(1) as (running, (backend,)):
        await post(running)
        for leaves in ("close", "abort", "write_eof"):
            before, aborted = descriptors(), len(backend.aborted)
            backend.script(Fault(tokens=30, reasoning=0, after=28, end="stall", pace_ms=4))
            async with connection(running) as (reader, writer):
                writer.write(wired(distinct(stream=True)))
                await until(lambda: passages and passages[-1].blocks, 2)
                await reader.readuntil(b"\n\n")
                getattr(writer.transport, leaves)()
                await backend.wait_until(lambda b, count=aborted: len(b.aborted) > count)
            await until(lambda count=before: descriptors() <= count)
            passages.clear()
        records = await running.recorded(4)
    assert [record.status for record in records[1:]] == [499, 499, 499]


async def test_client_that_does_not_read(passages: list[Passage]) -> None:
    """What a client has not taken follows when it reads again, in its order."""
    many = [delta(f" {number:05}" * 120) for number in range(8_000)]
    end = [delta("", "stop"), *ENDS]
    async with paused() as (running, backend):
        backend.parts = [HEAD, *map(chunk, FIRST), b"".join(map(chunk, many)), chunk(*end), b"0\r\n\r\n"]
        async with running.http.post(f"{running.url}{CHAT}", json=distinct(**ASKED)) as response:
            await until(lambda: any(passage.unsent_size for passage in passages))
            assert await response.read() == b"".join([*FIRST, *many, *end])


async def test_comment_in_a_silence(passages: list[Passage]) -> None:
    """A comment stands between whole events, although the rest of a chunk is still to come."""
    more = [chunk(delta(f" {number}")) for number in range(9)]
    half = chunk(delta(" half"))
    rest = [*more, half[:40], b"", half[40:], *more, chunk(delta("", "stop"), *ENDS), b"0\r\n\r\n"]
    async with paused(timeouts={"comment": 0.05}) as (running, backend):
        backend.parts = [HEAD, *map(chunk, FIRST), *rest]
        answer, record = await post_recorded(running, distinct(**ASKED))

    said = b"".join([*FIRST, *[delta(f" {number}") for number in range(9)]])
    assert KEEP_ALIVE in answer.body
    assert all(part.endswith(b"\n\n") for part in answer.body.split(KEEP_ALIVE) if part)
    tail = [delta(" half"), *[delta(f" {number}") for number in range(9)], delta("", "stop"), *ENDS]
    assert answer.body.replace(KEEP_ALIVE, b"") == said + b"".join(tail)
    assert record.usage.completion == 42
    assert passages


async def test_thought_that_is_watched_for(passages: list[Passage]) -> None:
    """The mark of a thought is found behind events that passed in C."""
    texts = [delta(f" {number}") for number in range(20)]
    events = [*FIRST, *texts, delta("</think>"), delta("\n\n42"), delta("", "stop"), *ENDS]
    async with paused() as (running, backend):
        backend.parts = [HEAD, *map(chunk, events), b"0\r\n\r\n"]
        answer, record = await post_recorded(running, distinct(**ASKED | {"model": "tiny:long"}))

    assert answer.body == b"".join(events)
    assert (record.usage.lost_mark, record.usage.reasoning) == ("</think>", 40)
    assert passages[0].blocks > 5


async def test_many_at_once(passages: list[Passage]) -> None:
    """Streams that pass side by side get their own bytes only, and leave no descriptor."""
    async with replicated(2) as (running, backends):
        for backend in backends:
            backend.script(Fault(tokens=30, reasoning=0, pace_ms=1), times=40)
        await post(running)
        answers = await asyncio.gather(
            *[post(running, distinct(f"question {n}", stream=True)) for n in range(24)]
        )
        before = descriptors()
        answers += await asyncio.gather(
            *[post(running, distinct(f"question {n}", stream=True)) for n in range(24)]
        )
        assert descriptors() <= before
    for answer in answers:
        assert len(tokens(answer.body)) == 30
        assert len({line[:40] for line in answer.body.splitlines() if line.startswith(b"data: {")}) == 1
    assert len(passages) >= 24
    assert not lane._lanes


async def test_few_descriptors(passages: list[Passage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams take no further descriptors where few are free, and pass in Python."""
    monkeypatch.setattr(lane, "_most_descriptors", lambda: 3)
    events = [*FIRST, *[delta(" a")] * 9, delta("", "stop"), *ENDS]
    async with paused() as (running, backend):
        backend.parts = [HEAD, *map(chunk, events), b"0\r\n\r\n"]
        assert (await post(running, ask(**ASKED))).body == b"".join(events)
    assert passages == []
