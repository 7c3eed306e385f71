"""A replica that fails its health checks gets no requests until it passes one again."""

from __future__ import annotations

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import NEVER_MS, ask, asked, post, readiness, replicated, until
from tests.serving import Running, configuration, serving

UNCHECKED = {"interval": 3_600, "timeout": 20}
QUICKLY_CHECKED = {"interval": 0.02, "timeout": 20, "failures": 2}


async def up(running: Running, backend: str = "a") -> float:
    return (await running.metrics())[f'thinkmeter_backend_up{{backend="{backend}",model="tiny"}}']


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

        assert [request.json["max_completion_tokens"] for request in asked(backend)] == [288, 75]
