"""However a request ends, its slot at the replica is freed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import (
    CHAT,
    NEVER_MS,
    asked,
    connection,
    distinct,
    post_recorded,
    replicated,
    slots,
    until,
    wired,
)
from tests.serving import Running, configuration, serving

ENDS = {
    "success": Fault(),
    "garbage": Fault(garbage=100),
    "wrong kind": Fault(body="hi", content_type="text/plain"),
    "empty": Fault(empty=True),
    "reset": Fault(reset=True),
    "400": Fault(status=400),
    "429": Fault(status=429),
    "500": Fault(status=500),
    "503": Fault(status=503),
    "cut": Fault(after=1, end="cut"),
    "cut before the first event": Fault(after=-1, end="cut"),
    "reset in the middle": Fault(after=1, end="reset"),
    "clean end in the middle": Fault(after=1, end="clean", half_event=True),
    "error event": Fault(after=1, error="boom"),
    "refused stream": Fault(after=-1, error="no", error_code=400),
}
STALLS = {
    "no answer": Fault(delay_ms=NEVER_MS),
    "headers only": Fault(first_byte_ms=NEVER_MS),
    "a part": Fault(after=1, end="stall"),
}
QUICK = {"first_byte": 0.1, "idle": 0.1, "total": 0.2}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_no_lost_slot(backend: Backend, subtests: pytest.Subtests, path: str, stream: bool) -> None:
    """However a request ends, the replica counts as idle and serves the next request."""

    def question() -> dict[str, Any]:
        chat = distinct(stream=stream)
        return chat if path == CHAT else {"model": "tiny", "prompt": chat["user"], "stream": stream}

    async with serving(configuration(backend.url, breaker={"failures": 1_000}, retries=1)) as running:
        for name, fault in ENDS.items():
            with subtests.test(name):
                backend.script(fault, times=2)
                await post_recorded(running, question(), path=path)

                assert slots(running) == [0]
                backend.clear()
                answer, _ = await post_recorded(running, question(), path=path)
                assert (answer.status, slots(running)) == (200, [0])
        assert await in_flight(running) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_no_lost_slot_on_timeouts(backend: Backend, subtests: pytest.Subtests, stream: bool) -> None:
    """If a backend falls silent at any point, the request times out and its slot is freed."""
    async with serving(configuration(backend.url, timeouts=QUICK)) as running:
        for name, fault in STALLS.items():
            with subtests.test(name):
                backend.script(fault)
                _, record = await post_recorded(running, distinct(stream=stream))

                assert record.error is not None
                assert (record.error.code, slots(running)) == ("backend_timeout", [0])
                await backend.wait_until(lambda b: b.in_flight == 0)
        assert await in_flight(running) == 0


async def in_flight(running: Running) -> float:
    """The requests in flight at the replica, according to /metrics."""
    return (await running.metrics())['thinkmeter_backend_in_flight{backend="a",model="tiny"}']


@pytest.mark.parametrize("stream", [False, True])
async def test_no_lost_slot_when_the_client_leaves(
    running: Running, backend: Backend, subtests: pytest.Subtests, stream: bool
) -> None:
    """A client that leaves frees its slot, at any moment; twenty leave, one after the other."""
    moments = STALLS | ({"while tokens flow": Fault(pace_ms=5, drip_ms=5)} if stream else {})
    for count, (name, fault) in enumerate(moments.items(), 1):
        with subtests.test(name):
            backend.default = fault
            for _ in range(20):
                async with connection(running) as (_, writer):
                    writer.write(wired(distinct(stream=stream)))
                    await backend.wait_until(lambda b: b.in_flight)
                    assert slots(running) == [1]
                await backend.wait_until(lambda b: b.in_flight == 0)
                await until(lambda: slots(running) == [0])
            records = await running.recorded(20 * count)
            assert [record.status for record in records[-20:]] == [499] * 20
    assert await in_flight(running) == 0


async def test_no_lost_slot_in_a_storm() -> None:
    """A hundred concurrent clients meet faults of all kinds, and half of them leave: all slots are freed."""
    async with replicated(timeouts=QUICK, breaker={"failures": 10_000}) as (running, backends):
        for backend in backends:
            for fault in [*ENDS.values(), *STALLS.values()] * 3:
                backend.script(fault)

        def reached() -> int:
            return max(len(running.records), sum(len(asked(backend)) for backend in backends))

        async def one(number: int) -> None:
            async with connection(running) as (reader, writer):
                writer.write(wired(distinct(stream=number % 3 == 0), CHAT, "connection: close"))
                if number % 2:
                    await reader.read()
                else:
                    await until(lambda: reached() > number // 2)

        await asyncio.gather(*map(one, range(100)))
        await running.recorded(100)

        assert slots(running) == [0, 0]
        for backend in backends:
            await backend.wait_until(lambda b: b.in_flight == 0)
