"""The budgets on the console."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.budget.observer import WindowSurvey
from tests.console.stream import next_of, watching
from tests.console.test_browser import opened
from tests.fakes.backend import Backend
from tests.serving import Running, configuration, serving


def full(price: float = 0.25) -> dict[str, Any]:
    """A window that is three quarters full, partly with reservations."""
    window = {"budget": "everyone", "holder": "everyone", "window": "60", "stale": 0, "left_out": 0}
    return window | {"cap": 1_000, "settled": 700, "reserved": 50, "price": price, "at_bound": 0}


@pytest.fixture
async def budgeted(backend: Backend, tmp_path: Path, patient_redis: None) -> AsyncIterator[Running]:
    """A gateway with a budget of 1,000 tokens per minute, in its own Redis."""
    budget = {"name": "everyone", "window": "1m", "tokens": 1_000}
    settings = configuration(backend.url, budgets=[budget], redis={"directory": str(tmp_path / "redis")})
    async with serving(settings | {"reservations": {"shortest_answer": 8}}) as running:
        yield running


async def test_budgets_are_in_the_stream(budgeted: Running) -> None:
    """Each snapshot event has the current state of the budgets in Redis."""
    async with watching(budgeted) as events:
        [before] = (await next_of(events, "snapshot"))["budgets"]
        used = (await (await budgeted.chat()).json())["usage"]["completion_tokens"]
        async with asyncio.timeout(20):
            while True:
                [after] = (await next_of(events, "snapshot"))["budgets"]
                if after["settled"]:
                    break

    assert (before["budget"], before["cap"], before["settled"], before["reserved"]) == (
        "everyone",
        1_000,
        0,
        0,
    )
    assert (after["settled"], after["reserved"]) == (used, 0)


async def test_budgets_come_from_redis(budgeted: Running) -> None:
    """The console shows the state in Redis and the price, and does not depend on Prometheus' gauges."""
    gateway = budgeted.gateway
    used = (await (await budgeted.chat()).json())["usage"]["completion_tokens"]
    async with asyncio.timeout(20):
        while 'thinkmeter_price{budget="everyone"}' not in await budgeted.metrics():
            await asyncio.sleep(0.1)
        await gateway.ledger.store.journal.empty()
    await gateway.scrapes.read_budgets()
    price = gateway.ledger.pricing.highest()["everyone"].price
    gateway.metrics.budget.windows_read(WindowSurvey(), up=True, undelivered=0)
    gateway.metrics.budget.unpriced("everyone")

    assert b"budget_tokens{" not in gateway.metrics.exposition()
    assert gateway.console.snapshot()["budgets"] == [
        {
            "budget": "everyone",
            "holder": "*",
            "window": "60",
            "cap": 1_000,
            "settled": used,
            "reserved": 0,
            "price": pytest.approx(price),
            "at_bound": 0,
            "stale": 0,
            "left_out": 0,
        }
    ]


async def test_budgets_are_drawn(browser: Any, budgeted: Running) -> None:
    """The page shows how full the window is, in words and as a bar, and charts how full it was."""
    used = (await (await budgeted.chat()).json())["usage"]["completion_tokens"]
    async with opened(browser, budgeted.url) as page:
        bar = page.locator(f"#budgets [role=img][aria-label='{used} of 1,000 tokens in 1 minute']")
        await bar.wait_for()
        widths = await bar.evaluate("bar => [...bar.children].map((part) => parseFloat(part.style.width))")

        assert widths == [pytest.approx(used / 10), 0]
        assert await page.locator("#budgets .fill-area").count() == 1
        assert "everyone" in await page.locator("#budgets").inner_text()


@pytest.mark.parametrize(("controller", "shown"), [(0.25, "price 6"), (8.5, "price 8.5")])
async def test_the_price_drawn_is_what_requests_pay(
    browser: Any, backend: Backend, controller: float, shown: str
) -> None:
    """If a budget's price is below the configured price, the configured price is shown."""
    async with serving(configuration(backend.url) | {"price": 6}) as running:
        running.gateway.console.budgets = lambda: [full(controller)]
        async with opened(browser, running.url) as page:
            await page.locator("#budgets").get_by_text(shown, exact=True).wait_for()
