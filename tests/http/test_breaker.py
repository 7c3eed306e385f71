"""A replica that fails the requests of several clients gets no requests until it has recovered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.upstream.pool import _rendezvous
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.raw_http import Answer
from tests.http.wire import (
    CHAT,
    NEVER_MS,
    asked,
    connection,
    distinct,
    post,
    readiness,
    replicated,
    slots,
    until,
    wired,
)
from tests.serving import Running

UNCHECKED = {"interval": 3_600, "timeout": 20}
CLOSED, HALF_OPEN, OPEN = 0, 1, 2
STREAMS = pytest.mark.parametrize("stream", [False, True])


KEYS = [{"name": name, "key": f"sk-{name}"} for name in "xyz"]


def guarded(**breaker: Any) -> dict[str, Any]:
    """Settings under which only the breaker can take a replica out, with the clients x, y and z."""
    limits = {"failures": 3, "open_seconds": 3_600} | breaker
    named = {"keys": KEYS, "affinity_header": "x-session"}
    return {"breaker": limits, "health": UNCHECKED, "retries": 0} | named


async def send(running: Running, client: str = "x", body: dict[str, Any] | None = None) -> Answer:
    """Send a request of a client that goes to the replica a, unless that is left out."""
    (pool,) = running.gateway.snapshot.pools.values()
    names = sorted(backend.name for backend in pool.backends)
    session = next(value for value in map(str, range(99)) if max(names, key=ranked(value)) == "a")
    headers = {"authorization": f"Bearer sk-{client}", "x-session": session}
    return await post(running, body or distinct(), headers=headers)


def ranked(session: str) -> Callable[[str], bytes]:
    return lambda name: _rendezvous(name, session)


async def state(running: Running, backend: str = "a") -> float:
    metrics = await running.metrics()
    return metrics[f'thinkmeter_backend_breaker_state{{backend="{backend}",model="tiny"}}']


def an_hour_passes(running: Running) -> None:
    """Make all open breakers an hour older."""
    for _, replica in running.gateway.snapshot.backends():
        if replica.breaker.opened_at is not None:
            replica.breaker.opened_at -= 3_600


async def up(running: Running, backend: str = "a") -> float:
    return (await running.metrics())[f'thinkmeter_backend_up{{backend="{backend}",model="tiny"}}']


FAILURES = [Fault(status=500), Fault(status=503), Fault(reset=True), Fault(garbage=50), Fault(empty=True)]
LATE_FAILURES = [Fault(after=1, end="cut"), Fault(after=1, end="clean"), Fault(after=1, end="stall")]


@STREAMS
async def test_failures_open_the_breaker(subtests: pytest.Subtests, stream: bool) -> None:
    """After failed requests of several clients a replica gets no more requests; another one serves them."""
    for fault in FAILURES:
        with subtests.test(fault=fault):
            async with replicated(**guarded()) as (running, (a, b)):
                a.default = fault
                for number, client in enumerate("xyx"):
                    assert await state(running) == CLOSED
                    assert (await send(running, client, distinct(stream=stream))).status in (502, 503)
                    assert len(asked(a)) == number + 1
                assert await state(running) == OPEN
                assert (await send(running, "z", distinct(stream=stream))).status == 200

                assert (len(asked(a)), len(asked(b))) == (3, 1)
                metrics = await running.metrics()
                assert metrics['thinkmeter_backend_ejections_total{backend="a",model="tiny"}'] == 1
                assert await readiness(running) == (200, "ready")


async def test_broken_streams_open_the_breaker(subtests: pytest.Subtests) -> None:
    """Streams that break count as failures, although they began well."""
    for fault in LATE_FAILURES:
        with subtests.test(fault=fault):
            async with replicated(**guarded(), timeouts={"idle": 0.1}) as (running, (a, _)):
                a.default = fault
                for client in "xyx":
                    assert (await send(running, client, distinct(stream=True))).status == 200

                assert await state(running) == OPEN


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault(reset=True)])
async def test_one_client_alone_opens_nothing(fault: Fault) -> None:
    """Requests that fail by their own fault take no replica from others while health checks pass."""
    async with replicated(**guarded()) as (running, (a, b)):
        a.script(fault, times=10)
        statuses = [(await send(running, "x")).status for _ in range(10)]
        others = [await send(running, client) for client in "yzyz"]

        assert set(statuses) <= {502, 503}
        assert [(answer.status, answer.headers["x-thinkmeter-backend"]) for answer in others] == [
            (200, "a")
        ] * 4
        assert await state(running) == CLOSED
        assert (len(asked(a)), len(asked(b))) == (14, 0)
        assert await readiness(running) == (200, "ready")


async def test_one_client_is_enough_while_health_checks_fail_too() -> None:
    """A failed health check is a witness, though it does not take the replica out alone."""
    async with replicated(**guarded()) as (running, (a, _)):
        a.script(Fault(status=500), path="/health")
        await running.gateway.health.check()
        a.default = Fault(status=500)
        for _ in range(3):
            await send(running, "x")

        assert await up(running) == 1
        assert await state(running) == OPEN


async def test_connections_that_cannot_be_opened_count_whoever_asked() -> None:
    """No request has a part in a refused connection. The others serve, and at last without an attempt."""
    async with replicated(**guarded() | {"retries": 2}) as (running, (a, _)):
        await a.down()
        answers = [await send(running, "x") for _ in range(4)]
        records = await running.recorded(4)

        assert [answer.status for answer in answers] == [200] * 4
        assert [record.attempts for record in records] == [2, 2, 2, 1]
        assert await state(running) == OPEN


async def test_the_last_replica_is_never_left_out() -> None:
    """A lone replica gets requests whatever its breaker says, and the gateway stays ready."""
    async with replicated(1, **guarded()) as (running, (backend,)):
        backend.script(Fault(status=500), times=4)
        statuses = [(await send(running, client)).status for client in "xyxyz"]

        assert statuses == [502, 502, 502, 502, 200]
        assert await state(running) == CLOSED
        assert await readiness(running) == (200, "ready")


async def test_at_most_half_of_the_replicas_are_left_out() -> None:
    """If all breakers are open, half of the replicas get requests again: those that opened first."""
    async with replicated(4, **guarded()) as (running, backends):
        members = {replica.name: replica for _, replica in running.gateway.snapshot.backends()}
        for seconds, name in enumerate("cadb"):
            members[name].breaker.opened_at = time.monotonic() + seconds
        answers = [await post(running, headers={"authorization": "Bearer sk-x"}) for _ in range(6)]

        assert {answer.headers["x-thinkmeter-backend"] for answer in answers} == {"a", "c"}
        assert [len(asked(backend)) > 0 for backend in backends] == [True, False, True, False]


@STREAMS
async def test_a_success_in_between_starts_the_count_anew(stream: bool) -> None:
    """Of each client, only failures in a row count."""
    async with replicated(**guarded()) as (running, (backend, _)):
        for _ in range(3):
            backend.script(Fault(status=500), times=2)
            statuses = [(await send(running, client, distinct(stream=stream))).status for client in "xyxy"]
            assert statuses == [502, 502, 200, 200]

        assert await state(running) == CLOSED


@STREAMS
async def test_what_is_not_the_replicas_fault(stream: bool) -> None:
    """A 429, or the refusal of an invalid request, does not count as a failure."""
    async with replicated(1, **guarded(failures=2)) as (running, (backend,)):
        for fault in (Fault(status=429), Fault(status=400), Fault(context_too_long=True)):
            backend.script(fault, times=3)
            for client in "xyz":
                assert (await send(running, client, distinct(stream=stream))).status in (400, 429)

            assert await state(running) == CLOSED
            assert (await send(running, "x", distinct(stream=stream))).status == 200


@STREAMS
async def test_clients_that_leave_do_not_open_the_breaker(stream: bool) -> None:
    """A client that leaves does not count as a failure of the replica."""
    async with replicated(1, **guarded(failures=2)) as (running, (backend,)):
        moments = (Fault(delay_ms=NEVER_MS), Fault(after=1, end="stall")) * 2
        for number, fault in enumerate(moments, 1):
            backend.script(fault)
            async with connection(running) as (_, writer):
                writer.write(wired(distinct(stream=stream), CHAT, f"x-api-key: sk-{'xyxy'[number - 1]}"))
                await backend.wait_until(lambda b: b.in_flight)
            await running.recorded(number)
            assert await state(running) == CLOSED


async def opened(running: Running, backend: Backend) -> None:
    """Open the breaker of the replica a."""
    backend.script(Fault(status=500), times=3)
    for client in "xyx":
        await send(running, client)
    assert await state(running) == OPEN


async def test_the_breaker_is_open_for_a_while() -> None:
    """A replica gets requests again after `open_seconds`, without any other event."""
    async with replicated(**guarded(open_seconds=0.05)) as (running, (a, _)):
        a.script(Fault(status=500), times=3)
        for client in "xyx":
            await send(running, client)
        await asyncio.sleep(0.06)
        answer = await send(running, "z")

        assert (answer.status, answer.headers["x-thinkmeter-backend"]) == (200, "a")


@STREAMS
async def test_a_trial_closes_the_breaker(stream: bool) -> None:
    """After `open_seconds` one trial request is sent; its success closes the breaker."""
    async with replicated(**guarded()) as (running, (a, _)):
        await opened(running, a)
        an_hour_passes(running)
        assert await state(running) == HALF_OPEN
        assert (await send(running, "z", distinct(stream=stream))).status == 200

        assert await state(running) == CLOSED
        assert len(asked(a)) == 4


@STREAMS
async def test_a_failed_trial_opens_it_again(stream: bool) -> None:
    """A single failure of the trial request opens the breaker again."""
    async with replicated(**guarded()) as (running, (a, b)):
        await opened(running, a)
        an_hour_passes(running)
        a.script(Fault(status=500))
        assert (await send(running, "z", distinct(stream=stream))).status == 502

        assert await state(running) == OPEN
        assert (await send(running)).status == 200
        assert (len(asked(a)), len(asked(b))) == (4, 1)


async def test_one_trial_at_a_time() -> None:
    """During a trial no other request goes to the replica; a cancelled trial makes room for the next."""
    async with replicated(**guarded()) as (running, (a, _)):
        await opened(running, a)
        an_hour_passes(running)
        a.script(Fault(delay_ms=NEVER_MS))
        trial = asyncio.create_task(send(running))
        await a.wait_until(lambda backend: backend.in_flight)
        assert (await send(running)).headers["x-thinkmeter-backend"] == "b"
        trial.cancel()
        await a.wait_until(lambda backend: backend.aborted)
        await until(lambda: slots(running) == [0, 0])

        assert (await send(running)).headers["x-thinkmeter-backend"] == "a"
        assert await state(running) == CLOSED


async def test_a_replica_that_returns_starts_anew() -> None:
    """What failed before a restart says nothing about the replica after it."""
    async with replicated(**guarded() | {"health": UNCHECKED | {"failures": 1}}) as (running, (a, _)):
        await opened(running, a)
        await a.down()
        await running.gateway.health.check()
        await a.up()
        await running.gateway.health.check()

        assert await state(running) == CLOSED
        assert (await send(running)).headers["x-thinkmeter-backend"] == "a"
