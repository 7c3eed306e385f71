"""A replica that fails requests or health checks gets no requests until it has recovered."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import NEVER_MS, ask, asked, connection, post, post_recorded, replicated, until, wired
from tests.serving import Running, configuration, serving

UNCHECKED = {"interval": 3_600, "timeout": 20}
QUICKLY_CHECKED = {"interval": 0.02, "timeout": 20, "failures": 2}
CLOSED, HALF_OPEN, OPEN = 0, 1, 2
STREAMS = pytest.mark.parametrize("stream", [False, True])


def guarded(**breaker: Any) -> dict[str, Any]:
    """Settings under which only the breaker can take a replica out."""
    return {"breaker": {"failures": 3, "open_seconds": 3_600} | breaker, "health": UNCHECKED, "retries": 0}


async def state(running: Running, backend: str = "a") -> float:
    metrics = await running.metrics()
    return metrics[f'thinkmeter_backend_breaker_state{{backend="{backend}",model="tiny"}}']


def an_hour_passes(running: Running) -> None:
    """Make all open breakers an hour older."""
    for _, replica in running.gateway.snapshot.backends():
        if replica.breaker.opened_at is not None:
            replica.breaker.opened_at -= 3_600


async def readiness(running: Running) -> tuple[int, str]:
    async with running.http.get(f"{running.url}/readyz") as response:
        return response.status, (await response.json())["status"]


async def up(running: Running, backend: str = "a") -> float:
    return (await running.metrics())[f'thinkmeter_backend_up{{backend="{backend}",model="tiny"}}']


FAILURES = [Fault(status=500), Fault(status=503), Fault(reset=True), Fault(garbage=50), Fault(empty=True)]
LATE_FAILURES = [Fault(after=1, end="cut"), Fault(after=1, end="clean"), Fault(after=1, end="stall")]


@STREAMS
async def test_failures_open_the_breaker(subtests: pytest.Subtests, stream: bool) -> None:
    """After three failures in a row a replica gets no more requests, and clients get an immediate 503."""
    async with replicated(1, **guarded()) as (running, (backend,)):
        for fault in FAILURES:
            with subtests.test(fault=fault):
                backend.default, begun = fault, len(asked(backend))
                for number in range(3):
                    assert await state(running) == CLOSED
                    assert (await post(running, ask(stream=stream))).status in (502, 503)
                    assert len(asked(backend)) == begun + number + 1
                assert await state(running) == OPEN
                backend.clear()
                answer = await post(running, ask(stream=stream))

                assert (answer.status, answer.code) == (503, "no_backend")
                assert len(asked(backend)) == begun + 3
                assert await readiness(running) == (503, "no healthy backend")
            an_hour_passes(running)
            await post(running)


async def test_broken_streams_open_the_breaker(subtests: pytest.Subtests) -> None:
    """Streams that break count as failures, although they began well."""
    async with replicated(1, **guarded(), timeouts={"idle": 0.1}) as (running, (backend,)):
        for fault in LATE_FAILURES:
            with subtests.test(fault=fault):
                backend.script(fault, times=3)
                for _ in range(3):
                    assert (await post(running, ask(stream=True))).status == 200

                assert await state(running) == OPEN
                assert (await post(running, ask(stream=True))).status == 503
            an_hour_passes(running)
            await post(running)


@STREAMS
async def test_a_success_in_between_starts_the_count_anew(stream: bool) -> None:
    """Only failures in a row count."""
    async with replicated(1, **guarded()) as (running, (backend,)):
        for _ in range(3):
            backend.script(Fault(status=500), times=2)
            statuses = [(await post(running, ask(stream=stream))).status for _ in range(3)]
            assert statuses == [502, 502, 200]

        assert await state(running) == CLOSED


@STREAMS
async def test_what_is_not_the_replicas_fault(stream: bool) -> None:
    """A 429, or the refusal of an invalid request, does not count as a failure."""
    async with replicated(1, **guarded(failures=1)) as (running, (backend,)):
        for fault in (Fault(status=429), Fault(status=400), Fault(context_too_long=True)):
            backend.script(fault, times=3)
            for _ in range(3):
                assert (await post(running, ask(stream=stream))).status in (400, 429)

            assert await state(running) == CLOSED
            assert (await post(running, ask(stream=stream))).status == 200


@STREAMS
async def test_clients_that_leave_do_not_open_the_breaker(stream: bool) -> None:
    """A client that leaves does not count as a failure of the replica."""
    async with replicated(1, **guarded(failures=1)) as (running, (backend,)):
        for number, fault in enumerate((Fault(delay_ms=NEVER_MS), Fault(after=1, end="stall")), 1):
            backend.script(fault)
            async with connection(running) as (_, writer):
                writer.write(wired(ask(stream=stream)))
                await backend.wait_until(lambda b: b.in_flight)
            await running.recorded(number)
            assert await state(running) == CLOSED


async def test_the_breaker_is_open_for_a_while() -> None:
    """A replica gets requests again after `open_seconds`, without any other event."""
    async with replicated(1, **guarded(failures=1, open_seconds=0.05)) as (running, (backend,)):
        backend.script(Fault(status=500))
        await post(running)
        await until(lambda: running.gateway.health.ready)
        assert (await post(running)).status == 200


@STREAMS
async def test_a_trial_closes_the_breaker(stream: bool) -> None:
    """After `open_seconds` one trial request is sent; its success closes the breaker."""
    async with replicated(1, **guarded()) as (running, (backend,)):
        backend.script(Fault(status=500), times=3)
        for _ in range(3):
            await post(running)
        an_hour_passes(running)
        assert await state(running) == HALF_OPEN
        assert (await post(running, ask(stream=stream))).status == 200

        assert await state(running) == CLOSED
        assert len(asked(backend)) == 4


@STREAMS
async def test_a_failed_trial_opens_it_again(stream: bool) -> None:
    """A single failure of the trial request opens the breaker again."""
    async with replicated(1, **guarded()) as (running, (backend,)):
        backend.script(Fault(status=500), times=4)
        for _ in range(3):
            await post(running)
        an_hour_passes(running)
        assert (await post(running, ask(stream=stream))).status == 502

        assert await state(running) == OPEN
        assert (await post(running)).status == 503
        assert len(asked(backend)) == 4


async def test_one_trial_at_a_time() -> None:
    """During a trial no other request goes to the replica; a cancelled trial makes room for the next."""
    async with replicated(1, **guarded(failures=1)) as (running, (backend,)):
        backend.script(Fault(status=500))
        backend.script(Fault(delay_ms=NEVER_MS))
        await post(running)
        an_hour_passes(running)
        async with connection(running) as (_, writer):
            writer.write(wired(ask()))
            await backend.wait_until(lambda b: b.in_flight)
            assert (await post(running)).status == 503
            assert len(asked(backend)) == 2
        await backend.wait_until(lambda b: b.aborted)
        await until(lambda: running.gateway.health.ready)

        assert (await post(running)).status == 200
        assert await state(running) == CLOSED


async def test_the_others_take_over() -> None:
    """While a breaker is open, requests go to the other replicas without an attempt at this one."""
    async with replicated(**guarded(failures=1)) as (running, (a, b)):
        a.script(Fault(status=500))
        assert (await post(running)).status == 502
        records = [(await post_recorded(running))[1] for _ in range(4)]

        assert [(record.backend, record.attempts) for record in records] == [("b", 1)] * 4
        assert (await state(running, "a"), await state(running, "b")) == (OPEN, CLOSED)
        assert (len(asked(a)), len(asked(b))) == (1, 4)
        assert await readiness(running) == (200, "ready")


async def test_a_dead_replica_leaves_and_returns() -> None:
    """Health checks exclude a dead replica before any request fails on it, and include it when it is back."""
    async with replicated(health=QUICKLY_CHECKED, retries=0) as (running, (a, b)):
        replicas = dict(zip("ab", (x for _, x in running.gateway.snapshot.backends()), strict=True))
        await a.down()
        await until(lambda: not replicas["a"].healthy)
        assert (await up(running, "a"), await up(running, "b")) == (0, 1)
        assert [(await post(running)).status for _ in range(4)] == [200] * 4
        assert (len(asked(a)), len(asked(b))) == (0, 4)

        await a.up()
        await until(lambda: replicas["a"].healthy)
        assert await up(running, "a") == 1
        await post(running)
        assert len(asked(a)) == 1


async def test_readiness_follows_the_replicas() -> None:
    """/readyz is 503 while no replica is usable; /healthz is 200 as long as the process lives."""
    async with replicated(1, health=QUICKLY_CHECKED) as (running, (backend,)):
        assert await readiness(running) == (200, "ready")
        await backend.down()
        await until(lambda: not running.gateway.health.ready)
        assert await readiness(running) == (503, "no healthy backend")
        async with running.http.get(f"{running.url}/healthz") as response:
            assert (response.status, await response.json()) == (200, {"status": "ok"})
        answer = await post(running)
        assert (answer.status, answer.code) == (503, "no_backend")

        await backend.up()
        await until(lambda: running.gateway.health.ready)
        assert await readiness(running) == (200, "ready")
        assert (await post(running)).status == 200


async def test_an_unwell_answer_takes_a_replica_out(subtests: pytest.Subtests) -> None:
    """Any status but 2xx on the health path is a failed check."""
    async with replicated(1, health=QUICKLY_CHECKED) as (running, (backend,)):
        for fault in (Fault(status=503), Fault(status=404), Fault(reset=True), Fault(status=302)):
            with subtests.test(fault=fault):
                backend.script(fault, path="/health", times=None)
                await until(lambda: not running.gateway.health.ready)
                assert await up(running) == 0

                backend.clear()
                await until(lambda: running.gateway.health.ready)
                assert await up(running) == 1


async def test_a_check_that_hangs_takes_a_replica_out() -> None:
    """A health check without a response fails after its timeout, and the checks continue."""
    health = {"interval": 0.02, "timeout": 0.1, "failures": 1}
    async with replicated(1, health=health) as (running, (backend,)):
        backend.script(Fault(delay_ms=NEVER_MS), path="/health", times=None)
        await until(lambda: not running.gateway.health.ready)
        backend.clear()
        await until(lambda: running.gateway.health.ready)


async def test_one_failed_check_is_forgiven() -> None:
    """A replica is excluded only after `failures` failed checks in a row."""

    def checks(backend: Backend) -> int:
        return sum(request.path == "/health" for request in backend.requests)

    async with replicated(1, health={"interval": 0.02, "timeout": 20, "failures": 3}) as (
        running,
        (backend,),
    ):
        (_, replica), *_ = running.gateway.snapshot.backends()
        for _ in range(3):
            backend.script(Fault(status=500), path="/health", times=2)
            begun = checks(backend)
            await until(lambda begun=begun: checks(backend) >= begun + 3 or not replica.healthy)
            assert replica.healthy


async def test_the_path_is_configured(backend: Backend) -> None:
    """Health checks use the configured path."""
    async with serving(configuration(backend.url, health=UNCHECKED | {"path": "/ping?deep=1"})) as running:
        assert await readiness(running) == (200, "ready")

    assert [request.target for request in backend.requests if request.path == "/ping"] == ["/ping?deep=1"]


async def test_a_new_context_is_learnt_on_return() -> None:
    """A replica that returns may have another context length, which then applies."""
    async with replicated(1, health=QUICKLY_CHECKED) as (running, (backend,)):
        backend.clamp = True
        await post(running, ask(model="tiny:long"))
        await backend.down()
        await until(lambda: not running.gateway.health.ready)
        backend.max_model_len = 100
        await backend.up()
        await until(lambda: running.gateway.health.ready)
        await post(running, ask(model="tiny:long"))

        assert [request.json["max_completion_tokens"] for request in asked(backend)] == [288, 100]
