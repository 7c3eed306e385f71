"""Backends and clients that fall silent time out; each kind of wait has its own limit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import openai
import pytest

from tests.fakes.fault import Fault
from tests.http.wire import (
    NEVER_MS,
    asked,
    connection,
    distinct,
    post,
    post_recorded,
    replicated,
    slots,
    stream_errors,
    tokens,
    wired,
)

STREAMS = pytest.mark.parametrize("stream", [False, True])
SILENT = [Fault(delay_ms=NEVER_MS), Fault(first_byte_ms=NEVER_MS), Fault(after=-1, end="stall")]
UNCHECKED = {"interval": 3_600, "timeout": 20}


@contextlib.asynccontextmanager
async def unreachable(port: int) -> AsyncIterator[None]:
    """Make a port neither accept nor refuse connections, by filling its queue."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        await asyncio.sleep(0)
        yield


@STREAMS
async def test_connect(stream: bool) -> None:
    """If a connection cannot be opened within the connect timeout, the next replica is tried."""
    timeouts = {"connect": 0.2}
    async with replicated(timeouts=timeouts, health=UNCHECKED) as (running, (a, b)):
        await a.down()
        async with unreachable(a.port):
            answer, record = await post_recorded(running, distinct(stream=stream))
            assert (answer.status, record.backend, record.attempts) == (200, "b", 2)
            assert len(asked(b)) == 1

            await b.down()
            async with unreachable(b.port):
                answer = await post(running, distinct(stream=stream))
                assert (answer.status, answer.code) == (503, "no_backend")
                assert slots(running) == [0, 0]


async def test_first_byte(subtests: pytest.Subtests) -> None:
    """A stream that does not begin in time is a 504; a lone replica gets no second attempt."""
    async with replicated(1, timeouts={"first_byte": 0.1}) as (running, (backend,)):
        for number, fault in enumerate(SILENT, 1):
            with subtests.test(fault=fault):
                backend.script(fault)
                answer = await post(running, distinct(stream=True))

                assert (answer.status, answer.code) == (504, "backend_timeout")
                await backend.wait_until(lambda b, number=number: len(b.aborted) == number)
                assert len(asked(backend)) == number
                assert slots(running) == [0]


async def test_failover_after_first_byte_timeout(subtests: pytest.Subtests) -> None:
    """With `resend_lost`, another replica gets a late stream's request and the first is told to stop."""
    settings = {"timeouts": {"first_byte": 0.5}, "failover": {"resend_lost": True, "retry_share": 1}}
    async with replicated(**settings) as (running, (a, b)):
        for number, fault in enumerate(SILENT, 1):
            with subtests.test(fault=fault):
                a.script(fault)
                answer, record = await post_recorded(running, distinct(stream=True))

                assert (answer.status, record.backend, record.attempts) == (200, "b", 2)
                assert len(tokens(answer.body)) == 32
                await a.wait_until(lambda backend, number=number: len(backend.aborted) == number)
                assert (len(asked(a)), len(asked(b))) == (number, number)
                assert slots(running) == [0, 0]


async def test_whole_answers_have_no_first_byte_limit() -> None:
    """A response that is not streamed begins when it is complete, so only the total timeout applies."""
    async with replicated(1, timeouts={"first_byte": 0.05}) as (running, (backend,)):
        backend.script(Fault(delay_ms=150, first_byte_ms=150))
        answer = await post(running)

        assert answer.status == 200


async def test_idle() -> None:
    """A stream that falls silent ends with an error event after the events so far, without a retry."""
    async with replicated(timeouts={"idle": 0.3}) as (running, (a, b)):
        a.script(Fault(after=3, end="stall", half_event=True))
        answer, record = await post_recorded(running, distinct(stream=True))

        assert answer.status == 200
        assert tokens(answer.body) == [" t0", " t1", " t2"]
        assert [error["code"] for error in stream_errors(answer.body)] == ["backend_timeout"]
        assert record.error is not None
        assert (record.error.code, record.usage.completion) == ("backend_timeout", 3)
        await a.wait_until(lambda backend: backend.aborted)
        assert len(asked(b)) == 0
        assert slots(running) == [0, 0]


async def test_a_slow_stream_is_not_idle() -> None:
    """A stream may last longer than the idle timeout, as long as data keeps arriving."""
    async with replicated(1, timeouts={"idle": 1.2}) as (running, (backend,)):
        backend.script(Fault(pace_ms=70, tokens=20))
        answer = await post(running, distinct(stream=True))

        assert stream_errors(answer.body) == []
        assert len(tokens(answer.body)) == 20


async def test_total_of_a_stream() -> None:
    """An endless stream ends at the total timeout."""
    async with replicated(1, timeouts={"total": 0.3}) as (running, (backend,)):
        backend.script(Fault(pace_ms=20, tokens=1_000))
        answer = await post(running, distinct(stream=True, max_tokens=1_000))

        assert [error["code"] for error in stream_errors(answer.body)] == ["backend_timeout"]
        await backend.wait_until(lambda b: b.aborted)
        assert slots(running) == [0]


async def test_total_of_a_whole_answer(subtests: pytest.Subtests) -> None:
    """A response that is not complete at the total timeout is a 504, without a retry."""
    async with replicated(timeouts={"total": 0.2}) as (running, (a, b)):
        for number, fault in enumerate((*SILENT[:2], Fault(end="stall")), 1):
            with subtests.test(fault=fault):
                a.default = b.default = fault
                answer = await post(running)

                assert (answer.status, answer.code) == (504, "backend_timeout")
                await a.wait_until(lambda _, number=number: len(a.aborted) + len(b.aborted) == number)
                assert len(asked(a)) + len(asked(b)) == number
                assert slots(running) == [0, 0]


async def test_retries_share_the_total() -> None:
    """The total timeout covers all attempts of a request together."""
    settings = {"timeouts": {"total": 0.3, "first_byte": 0.2}, "failover": {"resend_lost": True}}
    async with replicated(3, **settings) as (running, backends):
        for backend in backends[:2]:
            backend.default = Fault(delay_ms=NEVER_MS)
        answer = await post(running, distinct(stream=True))

        assert (answer.status, answer.code) == (504, "backend_timeout")
        assert len(asked(backends[2])) == 0
        assert slots(running) == [0, 0, 0]


async def test_the_official_client_sees_a_timeout() -> None:
    """The official client raises a timeout as InternalServerError with status 504, which it would retry."""
    async with replicated(1, timeouts={"total": 0.1}) as (running, (backend,)), running.client() as client:
        backend.script(Fault(delay_ms=NEVER_MS))
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(**distinct())

    assert (raised.value.status_code, raised.value.code) == (504, "backend_timeout")


@pytest.mark.parametrize("fault", [Fault(pad=30_000_000), Fault(pad=30_000_000, split=700_000)])
async def test_a_client_that_stops_reading(fault: Fault) -> None:
    """A client that stops reading its stream is treated like one that left, and the backend is freed."""
    async with replicated(1, timeouts={"idle": 0.3}) as (running, (backend,)):
        backend.script(fault)
        async with connection(running) as (reader, writer):
            writer.write(wired(distinct(stream=True, max_tokens=100)))
            assert await reader.read(20)
            reader._transport.pause_reading()
            (record,) = await running.recorded(1)

            assert record.error is not None
            assert (record.status, record.error.code, record.cancelled) == (499, "client_closed", True)
            assert slots(running) == [0]
            await backend.wait_until(lambda b: b.in_flight == 0)
            async with asyncio.timeout(10):  # the connection is closed too, or a shutdown would wait for it
                while running.server.server_state.connections:
                    await asyncio.sleep(0.01)
        assert (await post(running)).status == 200


async def test_an_error_event_nobody_reads() -> None:
    """A stream that breaks ends even if its client reads nothing: sending the error event does not block."""
    async with replicated(1, timeouts={"idle": 0.3}) as (running, (backend,)):
        backend.script(Fault(pad=30_000_000, after=1, end="cut"))
        async with connection(running) as (reader, writer):
            writer.write(wired(distinct(stream=True)))
            assert await reader.read(20)
            reader._transport.pause_reading()
            (record,) = await running.recorded(1)

            assert record.error is not None
            assert slots(running) == [0]
            assert (await running.metrics())["thinkmeter_requests_in_flight"] == 1  # the scrape itself


async def test_a_client_that_does_not_read_whole_answers() -> None:
    """Complete responses that the client does not read occupy no slot, even if it pipelines more requests."""
    async with replicated(1) as (running, (backend,)):
        backend.default = Fault(pad=10_000_000)
        async with connection(running) as (reader, writer):
            reader._transport.pause_reading()
            writer.write(wired(distinct()) * 3)
            await backend.wait_until(lambda b: len(asked(b)) >= 1)
            await backend.wait_until(lambda b: b.in_flight == 0)

            assert (await post(running, distinct(max_tokens=1))).status == 200
            assert slots(running) == [0]


async def test_a_client_that_reads_slowly_gets_everything() -> None:
    """A client that reads slowly but steadily gets the complete stream."""
    async with replicated(1, timeouts={"idle": 1}) as (running, (backend,)):
        backend.script(Fault(pad=3_000_000))
        async with connection(running) as (reader, writer):
            writer.write(wired(distinct(stream=True), "/v1/chat/completions", "connection: close"))
            got = 0
            while block := await reader.read(65_536):
                got += len(block)
                await asyncio.sleep(0.01)

        (record,) = await running.recorded(1)
        assert record.error is None
        assert got > 3_000_000
