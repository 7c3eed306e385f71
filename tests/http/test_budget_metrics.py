"""The metrics of budgets and predictions, from real traffic with a real Redis."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.redis import RealRedis, real_redis
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")

BUDGET = {"name": "all", "window": "1m", "tokens": 4_000, "when_redis_fails": "open"}


@pytest.fixture
async def governed(backend: Backend) -> AsyncIterator[tuple[Running, RealRedis]]:
    with real_redis() as redis:
        settings = configuration(backend.url, redis={"url": redis.url}, budgets=[BUDGET], price=0.01)
        async with serving(settings) as running:
            yield running, redis


async def reaches(running: Running, name: str, least: float) -> dict[str, float]:
    """Wait until a metric has reached a value, and return all metrics."""
    async with asyncio.timeout(20):
        while (metrics := await running.metrics()).get(name, -1) < least:
            await asyncio.sleep(0.1)
    return metrics


async def test_predictions_are_counted(running: Running) -> None:
    """Predicted tokens and correctness are counted, and the predicted tokens of the longest tier."""
    await running.chat("hello")
    await running.chat("prove it", model="tiny:short")
    decisions = [record.decision for record in running.records]
    metrics = await running.metrics()

    def total(name: str) -> float:
        return sum(value for key, value in metrics.items() if key.startswith(f"thinkmeter_{name}_total{{"))

    assert all(decisions)
    known: list[Any] = decisions
    assert total("predicted_tokens") == pytest.approx(sum(d.tokens[d.tier] for d in known))
    assert total("predicted_correct") == pytest.approx(sum(d.correct[d.tier] for d in known))
    assert total("longest_tokens") == pytest.approx(sum(d.tokens[d.eligible[-1]] for d in known))


async def test_price(governed: tuple[Running, RealRedis]) -> None:
    """Soon after the first request its budget has a price, which is not at its bound if tokens are left."""
    running, _ = governed
    await running.chat("hello", max_tokens=20)
    metrics = await reaches(running, 'thinkmeter_price{budget="all"}', 0.0)

    assert metrics['thinkmeter_price_at_bound{budget="all"}'] == 0
    assert metrics['thinkmeter_budget_stale_tokens{budget="all"}'] == 0


async def test_a_backend_that_ignores_its_cap(governed: tuple[Running, RealRedis], backend: Backend) -> None:
    """Tokens beyond the reservation are settled, and counted as an overrun."""
    running, _ = governed
    backend.script(Fault(tokens=700, deaf=True))
    answer = await running.chat("hello", model="tiny:direct", max_tokens=20)
    used = (await answer.json())["usage"]["completion_tokens"]
    metrics = await reaches(running, 'thinkmeter_budget_overrun_tokens_total{budget="all"}', 1)

    assert metrics['thinkmeter_budget_overrun_tokens_total{budget="all"}'] == used - 20


async def test_without_redis(governed: tuple[Running, RealRedis]) -> None:
    """While Redis is down, metrics show errors and undelivered settlements; afterwards all are delivered."""
    running, redis = governed
    redis.stop(signal.SIGKILL)
    await running.chat("hello", max_tokens=20)
    metrics = await reaches(running, "thinkmeter_budget_undelivered", 1)
    assert (
        sum(value for name, value in metrics.items() if name.startswith("thinkmeter_redis_errors_total")) >= 1
    )

    redis.start()
    async with asyncio.timeout(20):
        while (await running.metrics())["thinkmeter_budget_undelivered"]:
            await asyncio.sleep(0.1)
