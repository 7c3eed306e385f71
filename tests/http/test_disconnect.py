"""A client that disconnects stops the backend, streaming or not, and is not recorded as a failure."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import (
    CHAT,
    NEVER_MS,
    ask,
    asked,
    connection,
    post,
    post_recorded,
    replicated,
    slots,
    until,
    wired,
)
from tests.serving import Running

CANCELLED = 'thinkmeter_upstream_cancelled_total{cause="client",model="tiny"}'
STREAMS = pytest.mark.parametrize("stream", [False, True])
MOMENTS = [Fault(delay_ms=NEVER_MS), Fault(first_byte_ms=NEVER_MS), Fault(after=2, end="stall")]


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings"])
async def test_leaving_cancels_upstream(
    running: Running, backend: Backend, subtests: pytest.Subtests, path: str
) -> None:
    """When the client closes its connection, at any moment, the gateway closes the one to the backend."""
    question = ask() if path == CHAT else {"model": "tiny", "prompt": "a b", "input": "a b"}
    for count, (fault, stream) in enumerate(itertools.product(MOMENTS, (False, True)), 1):
        with subtests.test(fault=fault, stream=stream):
            backend.script(fault)
            async with connection(running) as (_, writer):
                writer.write(wired(question | {"stream": stream}, path))
                await backend.wait_until(lambda b: b.in_flight)
                assert len(backend.aborted) == count - 1
            await backend.wait_until(lambda b, count=count: len(b.aborted) == count)
            record = (await running.recorded(count))[-1]

            assert (record.status, record.cancelled) == (499, True)
            assert record.error is not None
            assert record.error.code == "client_closed"
            assert slots(running) == [0]
            metrics = await running.metrics()
            assert metrics[CANCELLED] == count
            assert metrics['thinkmeter_errors_total{code="client_closed"}'] == count


async def test_official_client_closes_a_stream(running: Running, backend: Backend) -> None:
    """Closing a stream in the official client stops the backend; the tokens sent so far are counted."""
    backend.script(Fault(after=3, end="stall"))
    async with running.client() as client:
        stream = await client.chat.completions.create(**ask(), stream=True)
        seen = 0
        async for chunk in stream:
            seen += bool(chunk.choices[0].delta.content)
            if seen == 3:
                break
        await stream.close()
        await backend.wait_until(lambda b: b.aborted)
    (record,) = await running.recorded(1)

    assert (record.cancelled, record.usage.completion, record.usage.source) == (True, 3, "counted")


@STREAMS
async def test_official_client_is_cancelled(running: Running, backend: Backend, stream: bool) -> None:
    """Cancelling a task that waits for the official client stops the backend."""
    backend.script(Fault(delay_ms=NEVER_MS))
    async with running.client() as client:
        task = asyncio.create_task(client.chat.completions.create(**ask(), stream=stream))
        await backend.wait_until(lambda b: b.in_flight)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await backend.wait_until(lambda b: b.aborted)

    assert (await running.recorded(1))[0].cancelled


@STREAMS
async def test_a_client_that_left_is_not_retried(stream: bool) -> None:
    """A cancelled request is not retried on another replica."""
    async with replicated() as (running, (a, b)):
        a.script(Fault(delay_ms=NEVER_MS))
        async with connection(running) as (_, writer):
            writer.write(wired(ask(stream=stream)))
            await a.wait_until(lambda backend: backend.in_flight)
        await a.wait_until(lambda backend: backend.aborted)
        await running.recorded(1)

        assert (len(asked(a)), len(asked(b))) == (1, 0)


@STREAMS
async def test_leaving_during_failover(stream: bool) -> None:
    """If the client leaves while a second replica works, that replica is told to stop."""
    async with replicated() as (running, (a, b)):
        a.script(Fault(status=503))
        b.script(Fault(delay_ms=NEVER_MS))
        async with connection(running) as (_, writer):
            writer.write(wired(ask(stream=stream)))
            await b.wait_until(lambda backend: backend.in_flight)
        await b.wait_until(lambda backend: backend.aborted)
        (record,) = await running.recorded(1)

        assert (record.cancelled, slots(running)) == (True, [0, 0])


@STREAMS
async def test_an_answer_that_was_complete_is_not_cancelled(
    running: Running, backend: Backend, stream: bool
) -> None:
    """A client that closes its connection after the response has not cancelled it, announced or not."""
    for close in ("connection: close", "connection: keep-alive"):
        async with connection(running) as (reader, writer):
            writer.write(wired(ask(stream=stream), CHAT, close))
            end = b"0\r\n\r\n" if stream else b"\n\n"
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(end if stream else b'"metrics":null}')
    records = await running.recorded(2)

    assert [(record.status, record.cancelled, record.error) for record in records] == [(200, False, None)] * 2
    assert CANCELLED not in await running.metrics()
    assert backend.aborted == []


async def test_leaving_before_the_request_is_complete(running: Running, backend: Backend) -> None:
    """If a client leaves while it sends its body, no backend gets the request."""
    async with connection(running) as (_, writer):
        writer.write(wired(ask())[:-5])
        while (await running.metrics())["thinkmeter_requests_in_flight"] < 2:  # the scrape itself is one
            await asyncio.sleep(0)
    await until(lambda: [record.status for record in running.records].count(499))
    (record,) = [record for record in running.records if record.route == CHAT]

    assert (record.status, record.cancelled, record.backend) == (499, False, None)
    assert asked(backend) == []
    assert CANCELLED not in await running.metrics()


@STREAMS
async def test_others_are_not_disturbed(running: Running, backend: Backend, stream: bool) -> None:
    """Of two concurrent requests at one replica, only the one whose client left is stopped."""
    backend.script(Fault(delay_ms=NEVER_MS))
    backend.script(Fault(pace_ms=1, delay_ms=50))
    async with connection(running) as (_, writer):
        writer.write(wired(ask(stream=stream)))
        await backend.wait_until(lambda b: b.in_flight == 1)
        other = asyncio.create_task(post(running, ask(stream=stream)))
        await backend.wait_until(lambda b: len(asked(b)) == 2)
    answer = await other
    await backend.wait_until(lambda b: b.in_flight == 0)

    assert answer.status == 200
    assert b" t31" in answer.body
    assert [request.outcome for request in asked(backend)] == ["aborted", "done"]


@STREAMS
async def test_the_next_request_is_served(running: Running, backend: Backend, stream: bool) -> None:
    """After a cancelled request the replica is used as before."""
    backend.script(Fault(after=1, end="stall"))
    async with connection(running) as (_, writer):
        writer.write(wired(ask(stream=stream)))
        await backend.wait_until(lambda b: b.in_flight)
    await backend.wait_until(lambda b: b.aborted)
    answer, record = await post_recorded(running, ask(stream=stream))

    assert (answer.status, record.attempts) == (200, 1)


@STREAMS
async def test_a_half_closed_client_has_left(running: Running, backend: Backend, stream: bool) -> None:
    """A client that closes only its sending side counts as disconnected, as in uvicorn and vLLM."""
    backend.script(Fault(delay_ms=NEVER_MS))
    async with connection(running) as (_, writer):
        writer.write(wired(ask(stream=stream)))
        await backend.wait_until(lambda b: b.in_flight)
        writer.write_eof()
        await backend.wait_until(lambda b: b.aborted)

    assert (await running.recorded(1))[0].cancelled
