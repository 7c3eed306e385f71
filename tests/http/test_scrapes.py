"""Reading the metrics, the console and the admin API costs others little, however many holders there are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.budget.observer import WindowSurvey, WindowView
from gateway.store.store import Store
from gateway.telemetry.metrics import Metrics
from tests.fakes.backend import Backend
from tests.redis import RealRedis, delivered
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")

KEYS = [{"name": f"key-{number}", "key": f"secret-{number}"} for number in range(300)]
BUDGETS = [
    {"name": "minute", "scope": "key", "window": "1m", "tokens": 2_000},
    {"name": "day", "scope": "key", "window": "24h", "tokens": 100_000},
]
ADMIN = {"Authorization": "Bearer top-secret"}


@pytest.fixture
def settings(backend: Backend, redis_server: RealRedis) -> dict[str, Any]:
    """A gateway with 600 windows, of which 2 × 5 are shown."""
    redis_server.ask("FLUSHALL")
    return configuration(
        backend.url,
        redis={"url": redis_server.url},
        keys=KEYS,
        budgets=BUDGETS,
        admin={"key": "top-secret"},
        metrics={"holders": 5, "max_age": 0},
    )


@pytest.fixture
async def gateway(settings: dict[str, Any]) -> AsyncIterator[Running]:
    async with serving(settings) as running:
        yield running


async def spend(gateway: Running, number: int, tokens: int) -> None:
    body = {
        "model": "tiny:direct",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": tokens,
    }
    headers = {"Authorization": f"Bearer secret-{number}"}
    url = f"{gateway.url}/v1/chat/completions"
    async with gateway.http.post(url, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
    await delivered(gateway.gateway.ledger.store)


def holders(metrics: dict[str, float], budget: str) -> set[str]:
    return {
        name.split('holder="')[1].split('"')[0]
        for name in metrics
        if name.startswith("thinkmeter_budget_tokens{") and f'budget="{budget}"' in name
    }


async def test_most_used_holders_are_shown(gateway: Running) -> None:
    """The holders closest to their limit are shown, and then the first; the others are counted."""
    for number, tokens in ((123, 20), (250, 8), (299, 12)):
        await spend(gateway, number, tokens)

    metrics = await gateway.metrics()

    for budget in ("minute", "day"):
        assert holders(metrics, budget) == {"key-123", "key-250", "key-299", "key-0", "key-1"}
        assert metrics[f'thinkmeter_budget_holders_left_out{{budget="{budget}"}}'] == 295
        assert metrics[f'thinkmeter_budget_stale_tokens{{budget="{budget}"}}'] == 0
    labels = 'budget="day",holder="key-123",state="settled",window="86400"'
    assert metrics[f"thinkmeter_budget_tokens{{{labels}}}"] == 20
    rows = gateway.gateway.console.snapshot()["budgets"]
    assert len(rows) == 10
    assert {row["left_out"] for row in rows} == {295}


async def test_admin_sees_every_holder(gateway: Running) -> None:
    """The admin API lists all holders, in the order of the configuration."""
    await spend(gateway, 299, 12)
    async with gateway.http.get(f"{gateway.url}/admin/budgets", headers=ADMIN) as response:
        body = await response.json()

    assert [row["holder"] for row in body["budgets"]] == [key["name"] for key in KEYS] * 2
    assert body["budgets"][-1]["settled"] == 12
    assert body["redis"] == {"up": True}


async def test_lists_of_all_holders_are_shared(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many who list all holders at once cause few readings, and each sees what was spent before."""
    reads: list[int] = []
    slices = Store.slices

    def counted(store: Store, windows: Any) -> Any:
        reads.append(len(windows))
        return slices(store, windows)

    async def settled() -> int:
        async with gateway.http.get(f"{gateway.url}/admin/budgets", headers=ADMIN) as response:
            return int((await response.json())["budgets"][7]["settled"])

    monkeypatch.setattr(Store, "slices", counted)
    early = [asyncio.create_task(settled()) for _ in range(20)]
    await spend(gateway, 7, 8)
    late = [await settled() for _ in range(2)]
    await asyncio.gather(*early)

    assert late == [8, 8]
    assert len(reads) < 22


async def test_no_holders(settings: dict[str, Any]) -> None:
    """With `holders: 0` no names of keys are shown."""
    async with serving(settings | {"metrics": {"holders": 0, "max_age": 0}}) as running:
        text = await scrape(running)

    assert "key-1" not in text
    assert 'thinkmeter_budget_holders_left_out{budget="day"} 300.0' in text


async def test_scrapes_share_a_copy(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of scrapes reads the windows once, over one Redis connection that is not the requests'."""
    reads: list[int] = []
    slices = Store.slices

    def counted(store: Store, windows: Any) -> Any:
        reads.append(len(windows))
        return slices(store, windows)

    monkeypatch.setattr(Store, "slices", counted)
    async with serving(settings | {"metrics": {"max_age": 60}}) as running:
        clients = running.gateway.ledger.store.connection.command
        before = len((await clients("CLIENT", "LIST")).splitlines())
        texts = await asyncio.gather(*(scrape(running) for _ in range(16)))
        after = len((await clients("CLIENT", "LIST")).splitlines())

    assert reads == [600]
    assert after == before + 1
    assert len(set(texts)) == 1


async def scrape(running: Running) -> str:
    async with running.http.get(f"{running.url}/metrics") as response:
        return await response.text()


async def test_requests_are_served_during_a_scrape(gateway: Running) -> None:
    """A scrape runs in slices: others get many turns of the event loop before it ends, none far apart.

    The distance is CPU time of this thread, so another process that is busy does not matter.
    """
    turns: list[float] = []

    async def others() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            turns.append(time.thread_time() - before)

    task = asyncio.create_task(others())
    await scrape(gateway)
    task.cancel()

    assert len(turns) > 600 // 32
    assert max(turns) < 0.25


async def test_slow_reading_does_not_suspend_the_budget(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If reading the windows fails, requests are still decided by Redis."""
    reader = gateway.gateway.ledger.store._reader
    assert reader is not None

    async def too_slow(*_words: Any) -> Any:
        return TimeoutError("no reply in time")

    monkeypatch.setattr(reader, "_answer", too_slow)
    for _ in range(5):
        metrics = await gateway.metrics()
        assert metrics["thinkmeter_redis_up"] == 0
    await spend(gateway, 1, 8)

    assert gateway.gateway.ledger.up
    assert 'thinkmeter_budget_fallbacks_total{policy="open"}' not in await gateway.metrics()


def test_large_metric_is_written_once() -> None:
    """A metric that comes in several slices has one description."""
    amounts = {"cap": 10, "configured": 10, "settled": 3, "reserved": 2, "stale": 0}
    counts: Any = {
        "reset": 1.0,
        "requests": 1,
        "limited": 0,
        "price": None,
        "budget_price": None,
        "at_bound": None,
    }
    views = [WindowView("day", "key", f"key-{number}", 86_400, **amounts, **counts) for number in range(250)]
    metrics = Metrics(list)
    metrics.budget.windows_read(WindowSurvey(views), up=True, undelivered=0)
    text = metrics.exposition().decode()

    assert text.count("# TYPE thinkmeter_budget_tokens gauge") == 1
    assert text.count("\nthinkmeter_budget_tokens{") == 750
    start = text.index("\nthinkmeter_budget_tokens{")
    assert "#" not in text[start : text.rindex("\nthinkmeter_budget_tokens{")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"Authorization": "Bearer wrong"}, 401), ({"Authorization": "Bearer scraper"}, 200)],
)
async def test_key(backend: Backend, headers: dict[str, str], status: int) -> None:
    """With `metrics.key`, only that key opens /metrics, and it opens nothing else."""
    settings = configuration(
        backend.url, keys=KEYS[:1], admin={"key": "top-secret"}, metrics={"key": "scraper"}
    )
    async with serving(settings) as running:
        async with running.http.get(f"{running.url}/metrics", headers=headers) as response:
            assert response.status == status
            assert ("thinkmeter_build_info" in await response.text()) is (status == 200)
        for path in ("/v1/models", "/admin/budgets", "/console/events"):
            async with running.http.get(running.url + path, headers=headers) as response:
                assert response.status == 401


async def test_scrape_stays_open_to_old_clients(running: Running) -> None:
    """A scraper that uses HTTP/1.0 without keep-alive is served."""
    async with (
        aiohttp.ClientSession(version=aiohttp.HttpVersion10) as http,
        http.get(f"{running.url}/metrics") as response,
    ):
        assert response.status == 200
