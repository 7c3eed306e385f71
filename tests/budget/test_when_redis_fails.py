"""What clients see when Redis fails, by the budget's setting `when_redis_fails`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.redis import (
    RealRedis,
    until_up,
    use,
)
from tests.serving import configuration, serving


def governed(url: str, server: RealRedis, policy: str, **budget: Any) -> dict[str, Any]:
    budgets = [{"name": "b0", "window": "1m", "tokens": 3000, "when_redis_fails": policy} | budget]
    return configuration(url, redis={"url": server.url}, head="baseline", price=0, budgets=budgets)


@pytest.mark.usefixtures("patient_redis")
@pytest.mark.parametrize(
    ("policy", "status", "tier"), [("closed", 503, None), ("degrade", 200, "direct"), ("open", 200, "long")]
)
async def test_policies(
    backend: Backend, server: RealRedis, policy: str, status: int, tier: str | None
) -> None:
    """Without Redis the policy decides and is named in a header; later every token is counted."""
    async with serving(governed(backend.url, server, policy)) as gateway:
        server.stop(signal.SIGKILL)
        answers = [await gateway.chat("hello") for _ in range(4)]
        assert [answer.status for answer in answers] == [status] * 4
        assert answers[-1].headers.get("x-thinkmeter-tier") == tier
        assert answers[-1].headers.get("x-thinkmeter-budget-fallback") == (policy if tier else None)
        if not tier:
            assert (await answers[-1].json())["error"]["code"] == "budget_unavailable"
        metrics = await gateway.metrics()
        assert metrics[f'thinkmeter_budget_fallbacks_total{{policy="{policy}"}}'] == 4
        assert metrics["thinkmeter_redis_up"] == 0

        server.start()
        store = gateway.gateway.ledger.store
        await until_up(store)
        limit = gateway.gateway.snapshot.budgets.limits["b0", "*"]
        spent = [(await answer.json())["usage"]["completion_tokens"] for answer in answers if tier]
        assert await use(store, limit.window) == (sum(spent), 0)


@pytest.mark.usefixtures("patient_redis")
async def test_degraded_budget_is_capped_here(backend: Backend, server: RealRedis) -> None:
    """Under `degrade` a gateway spends at most its share; then its refusals name the reason."""
    settings = governed(backend.url, server, "degrade", tokens=600)
    async with serving(settings) as gateway:
        server.stop(signal.SIGKILL)
        answers = [await gateway.chat("hello") for _ in range(4)]
        spent = [(await a.json())["usage"]["completion_tokens"] for a in answers if a.status == 200]

        assert answers[-1].status == 429
        assert "degraded" in (await answers[-1].json())["error"]["message"]
        assert 0 < sum(spent) <= 60


@pytest.mark.usefixtures("patient_redis")
async def test_started_without_redis(backend: Backend, server: RealRedis) -> None:
    """A gateway starts while Redis is away, and uses it as soon as it is there."""
    server.stop()
    async with serving(governed(backend.url, server, "open")) as gateway:
        assert (await gateway.chat("hello")).headers["x-thinkmeter-budget-fallback"] == "open"
        server.start()
        await until_up(gateway.gateway.ledger.store)
        assert (await gateway.chat("hello")).headers["x-ratelimit-limit-tokens"] == "3000"


@pytest.mark.usefixtures("patient_redis")
async def test_long_stream_keeps_its_reservation(backend: Backend, server: RealRedis) -> None:
    """The reservation of a stream longer than its lease is renewed with the tokens so far."""
    backend.script(Fault(pace_ms=200))
    settings = governed(backend.url, server, "closed") | {"reservations": {"lease": 1}}
    async with serving(settings) as gateway:
        task = asyncio.create_task(gateway.chat("hello", stream=True))
        await asyncio.sleep(2.5)
        limit = gateway.gateway.snapshot.budgets.limits["b0", "*"]
        _, (found,) = await gateway.gateway.ledger.store.status([limit.window])
        with contextlib.closing(server.client()) as client:
            held = [v for k, v in client.hgetall(limit.window.key).items() if k.startswith(b"r")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await gateway.recorded(1)

        assert (found.settled, found.reserved, found.stale) == (0, 288, 0)
        ((amount, reported),) = (value.split(b":") for value in held)
        assert (amount, int(reported) > 0) == (b"288", True)
        settled, reserved = await use(gateway.gateway.ledger.store, limit.window)
        assert (settled >= int(reported), reserved) == (True, 0)


async def test_a_local_share_that_changes(backend: Backend, server: RealRedis) -> None:
    """If a reload changes a cap while Redis is away, the gateway keeps what its local window has counted."""
    server.stop(signal.SIGKILL)
    async with serving(governed(backend.url, server, "degrade", tokens=3_000)) as gateway:
        fallback = gateway.gateway.ledger.fallback
        before = gateway.gateway.snapshot.budgets.limits["b0", "*"]
        window = fallback.window(before)
        assert window.reserve(250, 0.0)
        after = before._replace(budget=before.budget.model_copy(update={"tokens": 1_000}))
        fallback.window(after).settle(250, 80, 1.0)

        assert not fallback.window(after).reserve(21, 2.0)
        assert fallback.window(after).reserve(20, 2.0)
        assert not fallback.window(after).reserve(81, 62.0)
        assert fallback.window(after).reserve(80, 62.0)
