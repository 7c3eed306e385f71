"""What ends streams while they pass in C: times, shutdowns, dying backends, clients that come and go."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from gateway.upstream import lane
from gateway.upstream.lane import Passage
from tests.fakes.fault import Fault
from tests.http.test_diverted_streams import ASKED, FIRST, HEAD, chunk, delta, paused
from tests.http.wire import (
    connection,
    distinct,
    post,
    post_recorded,
    replicated,
    slots,
    stream_errors,
    tokens,
    until,
    wired,
)

PACED = Fault(tokens=30, reasoning=0, pace_ms=4)
ENDLESS = Fault(tokens=10_000, reasoning=0, pace_ms=4, deaf=True)


async def test_total_time(passages: list[Passage]) -> None:
    """A stream that passes in C ends at the total timeout, and all that has passed is counted."""
    async with replicated(1, timeouts={"total": 1}) as (running, (backend,)):
        backend.script(ENDLESS)
        answer, record = await post_recorded(running, distinct(stream=True))
        await backend.wait_until(lambda b: b.aborted)

        assert [error["code"] for error in stream_errors(answer.body)] == ["backend_timeout"]
        assert record.usage.completion == len(tokens(answer.body))
        assert slots(running) == [0]
    assert any(passage.blocks for passage in passages)
    assert not lane._lanes


@pytest.mark.parametrize("end", ["silence", "shutdown", "loss"])
async def test_half_a_chunk(passages: list[Passage], end: str) -> None:
    """What has arrived of a chunk in C reaches nobody if the rest does not, and an error event follows."""
    many = [delta(f" {number}") for number in range(20)]
    half = chunk(delta(" half"))[:40]
    codes = {"silence": "backend_timeout", "shutdown": "shutting_down", "loss": "backend_disconnected"}
    idle = 0.3 if end == "silence" else 60
    async with paused(timeouts={"idle": idle}) as (running, backend):
        backend.parts = [HEAD, *map(chunk, FIRST), *map(chunk, many), half]
        backend.stays = end != "loss"
        asking = asyncio.create_task(post_recorded(running, distinct(**ASKED)))
        if end == "shutdown":
            await until(lambda: passages and passages[-1].begun)
            running.server.config.timeout_graceful_shutdown = 0  # type: ignore[assignment]
            running.server.should_exit = True
        answer, record = await asking

    said, _, error = answer.body.rpartition(b"data: ")
    assert said == b"".join([*FIRST, *many])
    assert [event["code"] for event in stream_errors(b"data: " + error)] == [codes[end]]
    assert record.usage.completion == 24
    assert not lane._lanes


async def test_shutdown_waits(passages: list[Passage]) -> None:
    """A stream that passes in C when the gateway is told to stop comes to its end."""
    async with replicated(1) as (running, (backend,)):
        backend.script(PACED)
        asking = asyncio.create_task(post(running, distinct(stream=True)))
        await until(lambda: passages and passages[-1].blocks)
        running.server.should_exit = True
        answer = await asking

    assert len(tokens(answer.body)) == 30
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert not backend.aborted


async def test_backend_that_dies(passages: list[Passage]) -> None:
    """All streams of a backend that dies end with an error event, and those of another one pass on."""
    async with replicated(2, failover={"retry_share": 0}) as (running, (dying, other)):
        dying.default, other.default = ENDLESS, PACED
        asking = [
            asyncio.create_task(post(running, distinct(f"question {number}", stream=True)))
            for number in range(8)
        ]
        await until(lambda: sum(passage.blocks > 1 for passage in passages) >= 8)
        await dying.down()
        answers = await asyncio.gather(*asking)
        await until(lambda: slots(running) == [0, 0])

    whole = [answer for answer in answers if not stream_errors(answer.body)]
    broken = [answer for answer in answers if answer not in whole]
    assert len(whole) == len(broken) == 4
    assert {len(tokens(answer.body)) for answer in whole} == {30}
    assert {error["code"] for a in broken for error in stream_errors(a.body)} == {"backend_disconnected"}
    assert not lane._lanes


async def test_numbers_of_sockets_that_come_again(passages: list[Passage]) -> None:
    """Who gets the number of a socket that was closed gets the bytes of its own stream only."""
    wanted = itertools.count()
    async with replicated(2) as (running, backends):
        for backend in backends:
            backend.default = PACED

        async def leaving() -> None:
            """Clients that leave in the middle, each followed by another one at once."""
            for _ in range(6):
                before = len(passages)
                async with connection(running) as (reader, writer):
                    writer.write(wired(distinct(f"leaving {next(wanted)}", stream=True)))
                    await until(lambda count=before: any(p.blocks for p in passages[count:]))
                    await reader.readuntil(b"\n\n")
                    writer.transport.abort()

        async def staying() -> list[bytes]:
            return [
                (await post(running, distinct(f"staying {next(wanted)}", stream=True))).body for _ in range(3)
            ]

        results = await asyncio.gather(*[leaving() for _ in range(3)], *[staying() for _ in range(3)])
        await until(lambda: slots(running) == [0, 0])

    bodies = [body for result in results if result for body in result]
    assert len(bodies) == 9
    for body in bodies:
        assert len(tokens(body)) == 30
        assert len({line[:40] for line in body.splitlines() if line.startswith(b"data: {")}) == 1
    assert not lane._lanes
    assert not any(passage.left for passage in passages)
    clients = [passage.client for passage in passages]
    assert len(set(clients)) < len(clients)
