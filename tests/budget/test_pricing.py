"""Current prices with a real Redis: all gateways share them, and they follow how full a budget is."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from gateway.budget.limits import Limit
from gateway.budget.pricing import Pricing
from gateway.budget.reservation import Demand, TierDemand
from gateway.config.budgets import Budget
from gateway.store.commands import Window, WindowState, window
from gateway.store.store import Store
from gateway.telemetry.metrics import Metrics
from router_model.allocation import PriceTable
from tests.redis import PATIENT, RealRedis, delivered, real_redis, reserved, running_store

TABLE = PriceTable([10.0, 100.0, 1000.0], [1.0, 0.1, 0.01])


def limit(name: str = "b", window_: float = 60, tokens: int = 10_000, **fields: Any) -> Limit:
    budget = Budget.model_validate({"name": name, "window": window_, "tokens": tokens} | fields)
    return Limit(budget, "*", window("{thinkmeter}", name, window_, "*", tokens))


def demand(tokens: int = 100) -> Demand:
    return Demand((TierDemand(tokens, None, tokens),), prompt=400)


ESTIMATES = [0.9, 0.5], [1000.0, 10.0]
"""Of two tiers: P(correct), and completion tokens."""


@pytest.fixture(scope="module")
def server() -> Iterator[RealRedis]:
    with real_redis() as running:
        yield running


@pytest.fixture
async def stores(server: RealRedis) -> AsyncIterator[tuple[Store, Store]]:
    """The stores of two gateways, on one empty Redis."""
    server.ask("FLUSHALL")
    async with (
        running_store(server.url, gateway_id="one", timeout=PATIENT) as one,
        running_store(server.url, gateway_id="two", timeout=PATIENT) as two,
    ):
        yield one, two


def priced(store: Store) -> tuple[Pricing, Metrics]:
    metrics = Metrics(tuple)
    return Pricing(store, metrics.budget), metrics


async def spend(store: Store, at: Limit, requests: int, tokens: int) -> None:
    """Reserve and settle so many requests, one after the other."""
    for _ in range(requests):
        id_, grant = await reserved(store, demand(tokens).command((at,)))
        assert grant.candidate
        store.journal.settle(id_, (at.window,), [(tokens, tokens)])
    await delivered(store)


async def filled(store: Store, *limits: Limit) -> tuple[Pricing, Metrics]:
    """Spend all 1,000 tokens of the first budget between two readings."""
    prices, metrics = priced(store)
    prices.note(limits, ESTIMATES, TABLE, demand(), 0.0)
    await prices.tick()
    await spend(store, limits[0], 10, 100)
    await prices.tick()
    return prices, metrics


async def test_no_price_before_the_first_reading(stores: tuple[Store, Store]) -> None:
    """A budget that has not been read yet has the configured price."""
    prices, _ = priced(stores[0])
    assert prices.price([limit()], 0.03) == 0.03
    prices.note([limit()], ESTIMATES, TABLE, demand(), 0.03)
    assert prices.price([limit()], 0.03) == 0.03
    assert not prices.tight([limit()])


async def test_replicas_share_one_price(stores: tuple[Store, Store]) -> None:
    """The first gateway to read stores the memory. The other reads it and computes the same price."""
    at = limit()
    both = [priced(store)[0] for store in stores]
    for prices in both:
        prices.note([at], ESTIMATES, TABLE, demand(), 0.0)
    await spend(stores[0], at, 1, 100)
    await both[0].tick()
    await spend(stores[0], at, 40, 100)
    await asyncio.sleep(1.05)  # a 60th of this window, so that the memory is stored
    await both[0].tick()
    _, (use,) = await stores[1].status([at.window])
    await both[1].tick()
    _, (after,) = await stores[1].status([at.window])

    assert use.memory == after.memory != b""
    first, second = (prices.price([at], 0.0) for prices in both)
    assert first == pytest.approx(second, rel=0.05)
    assert first > TABLE.floor


async def test_a_full_budget_is_dear(stores: tuple[Store, Store]) -> None:
    """A full window has the highest price and no room for experiments."""
    at = limit(tokens=1_000)
    prices, metrics = await filled(stores[0], at)

    assert prices.price([at], 0.0) == TABLE.ceiling
    assert prices.tight([at])
    assert b'thinkmeter_price_at_bound{budget="b"} 1.0' in metrics.exposition()


async def test_the_dearest_budget_rules(stores: tuple[Store, Store]) -> None:
    """The highest price of several budgets counts, but at least the configured one."""
    full, empty = limit("full", tokens=1_000), limit("empty", tokens=10**9)
    prices, _ = await filled(stores[0], full, empty)

    assert prices.price([empty], 0.0) == TABLE.floor
    assert prices.price([empty, full], 0.0) == prices.price([full], 0.0) == TABLE.ceiling
    assert prices.price([full], 2.0) == 2.0


async def test_a_large_request_is_forgotten(stores: tuple[Store, Store]) -> None:
    """The controller leaves room for the largest of the last 512 requests, not for one long ago."""
    at = limit()
    prices, _ = priced(stores[0])
    prices.note([at], ESTIMATES, TABLE, demand(9_000), 0.0)
    (pricer,) = prices.pricers.values()
    assert pricer.settings.full(10_000) == 0.5
    for _ in range(512):
        prices.note([at], ESTIMATES, TABLE, demand(100), 0.0)

    assert pricer.settings.full(10_000) == 0.95  # a request may reserve 500 of 10,000, prompt included


async def test_prompts_have_their_price(stores: tuple[Store, Store]) -> None:
    """If a budget counts prompts, the cost of a request includes its prompt, at four bytes per token."""
    prices, _ = priced(stores[0])
    for at in (limit("some"), limit("all", count="total")):
        for _ in range(64):
            prices.note([at], ESTIMATES, TABLE, demand(), 0.0)
    tables = [pricer.prices.table for pricer in prices.pricers.values()]
    assert [round(table.price(0.0), 3) for table in tables] == [pytest.approx(0.4 / 0.99, abs=1e-3)] * 2
    assert tables[0].price(1_000) == tables[0].floor
    assert tables[1].price(109) == tables[1].ceiling


async def test_idle_budgets_lose_their_price(stores: tuple[Store, Store]) -> None:
    """A budget without recent requests is no longer read, and its price leaves the metrics."""
    prices, metrics = priced(stores[0])
    prices.note([limit()], ESTIMATES, TABLE, demand(), 0.0)
    await prices.tick()
    assert b'thinkmeter_price{budget="b"}' in metrics.exposition()
    prices.idle_seconds = -1.0
    await prices.tick()

    assert b'thinkmeter_price{budget="b"}' not in metrics.exposition()
    assert prices.price([limit()], 0.03) == 0.03


async def test_prices_outlive_redis(server: RealRedis, stores: tuple[Store, Store]) -> None:
    """While Redis is away, the price stays the same and updates do no harm."""
    at = limit(tokens=1_000)
    prices, _ = await filled(stores[0], at)
    stores[0].connection.timeout = 0.1  # it will not answer, so a long timeout would only cost time
    server.send(signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            while stores[0].up:
                await prices.tick()
        await prices.tick()

        assert prices.price([at], 0.0) == TABLE.ceiling
    finally:
        server.send(signal.SIGCONT)


async def test_many_windows_are_updated_in_slices(
    stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of holders do not hold up other requests once per second, and all get their price."""
    store, (prices, _) = stores[0], priced(stores[0])
    for number in range(250):
        prices.note([limit(f"b{number}")], ESTIMATES, TABLE, demand(), 0.01)
    sizes = []
    read = store.status

    async def status(windows: Sequence[Window]) -> tuple[float, list[WindowState]]:
        sizes.append(len(windows))
        return await read(windows)

    monkeypatch.setattr(store, "status", status)
    await prices.tick()

    assert sum(sizes) == 250
    assert max(sizes) <= 100
    assert all(pricer.update for pricer in prices.pricers.values())
