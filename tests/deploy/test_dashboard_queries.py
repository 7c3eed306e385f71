"""Runs every query of every panel and rule on a real Prometheus that scrapes a real gateway under traffic."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gateway.config.evidence import EvidenceSettings
from gateway.store.embedded import binary
from tests.deploy.prometheus import Prometheus, backfill, prometheus
from tests.deploy.reading import queries, rules, variables
from tests.evidence.made import decision, store_rows
from tests.fakes.backend import Backend
from tests.serving import configuration, free_port, process

KEY = {"authorization": "Bearer secret-of-web"}
HISTORY = {
    'thinkmeter_decisions_total{model="tiny",tier="short",reason="price",instance="older"}': 6.0,
    'thinkmeter_decisions_total{model="tiny",tier="long",reason="price",instance="older"}': 4.0,
    'thinkmeter_shadow_pairs_total{model="tiny",result="tie",instance="older"}': 0.5,
    'thinkmeter_shadow_flips_total{model="tiny",instance="older"}': 0.1,
}
ROUNDS = 8
JUDGED = [decision(i, at=time.time(), arm=("adaptive", "holdout")[i % 2], key="web") for i in range(200)]
"""Decisions in the store, about which feedback comes."""
SERIALS = itertools.count()


def settings(redis_port: int, *urls: str) -> dict[str, Any]:
    """Two replicas, a key, a budget of one minute for all keys and one of a day for this key."""
    budgets = [
        {
            "name": "everyone",
            "scope": "global",
            "window": "1m",
            "tokens": 1_000_000,
            "when_redis_fails": "open",
        },
        {"name": "web-day", "scope": "key", "window": "24h", "tokens": 20_000, "when_redis_fails": "open"},
    ]
    redis = {"url": f"redis://127.0.0.1:{redis_port}/0"}
    # every request may try both replicas, also one that has failed before
    extra = {"retries": 1, "breaker": {"failures": 1000}, "keys": [{"name": "web", "key": "secret-of-web"}]}
    return configuration(*urls, budgets=budgets, redis=redis, **extra)


@contextlib.asynccontextmanager
async def redis_server(folder: Path, port: int) -> AsyncIterator[None]:
    """A real Redis on a port; it is killed at the end."""
    options = (
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
    )
    with (folder / "redis.log").open("ab") as log:
        running = await asyncio.create_subprocess_exec(binary(), *options, stdout=log, stderr=log)
    try:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            assert running.returncode is None, (folder / "redis.log").read_text()
            await asyncio.sleep(0.05)
        yield
    finally:
        running.kill()
        await running.wait()


async def chat(http: aiohttp.ClientSession, url: str, words: str, **fields: Any) -> int:
    """Send one request and read the response. Returns its status."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": words}]} | fields
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=KEY) as response:
        await response.read()
        return response.status


async def judge(http: aiohttp.ClientSession, url: str, serial: int) -> None:
    """Send feedback about one answer of each arm."""
    for number, correct in ((2 * serial, True), (2 * serial + 1, serial % 2 == 0)):
        body = {"decision_id": JUDGED[number].id, "correct": correct}
        async with http.post(f"{url}/v1/feedback", json=body, headers=KEY) as response:
            await response.read()


async def leave(http: aiohttp.ClientSession, url: str) -> None:
    """Send a request and leave before the response is complete."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await chat(http, url, "slow", stream=True, metadata={"fault": {"pace_ms": 200}})


async def traffic(http: aiohttp.ClientSession, url: str, rounds: int) -> None:
    """Send several rounds of requests, far enough apart for several scrapes."""
    for _ in range(rounds):
        await everything(http, url)
        await judge(http, url, next(SERIALS))
        await asyncio.sleep(0.7)


async def everything(http: aiohttp.ClientSession, url: str) -> None:
    """Send requests of every kind: easy and hard, streamed and whole, pinned, refused, failing, cancelled."""
    proof = "Prove that there are infinitely many primes, step by step. " * 20
    await asyncio.gather(
        *(chat(http, url, words, stream=stream) for words in ("hi", proof) for stream in (False, True)),
        *(chat(http, url, "hi", model=f"tiny:{tier}") for tier in ("direct", "short", "medium", "long")),
        chat(http, url, "hi", model="nobody"),
        chat(http, url, "hi", metadata={"fault": {"status": 503}}),
        leave(http, url),
    )


async def reload(folder: Path, text: str) -> None:
    """Change the configuration file and give the gateway time to read it."""
    (folder / "gateway.yaml").write_text(text)
    await asyncio.sleep(1.5)


@pytest.fixture(scope="module")
def tools() -> None:
    """Skips the tests if a program that they need is missing."""
    for tool in ("prometheus", "promtool"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed (Debian: prometheus)")


@pytest.mark.timeout(180)
async def test_every_query_returns_data(tools: None, tmp_path: Path) -> None:
    """After traffic, failures, reloads and a Redis outage, every panel and every recorded series has data."""
    redis_port, port = free_port(), free_port()
    backfill(tmp_path, HISTORY)
    async with Backend("tiny") as a, Backend("tiny") as b, aiohttp.ClientSession() as http:
        config = settings(redis_port, a.url, b.url) | {"evidence": {"file": str(tmp_path / "evidence.db")}}
        store_rows(EvidenceSettings.model_validate(config["evidence"]), JUDGED)
        async with contextlib.AsyncExitStack() as stack:
            async with redis_server(tmp_path, redis_port):
                gateway = await stack.enter_async_context(process(config, tmp_path, port=port))
                target = f"127.0.0.1:{port}"
                server = await stack.enter_async_context(prometheus(tmp_path, target, free_port()))
                await reload(tmp_path, yaml.safe_dump(config | {"nonsense": True}))
                await reload(tmp_path, yaml.safe_dump(config | {"price": 0.03}))
                await traffic(http, gateway.url, ROUNDS)
            await traffic(http, gateway.url, 3)
            async with redis_server(tmp_path, redis_port):
                await traffic(http, gateway.url, ROUNDS)
                assert await empty(server) == []


async def empty(server: Prometheus) -> list[str]:
    """The queries that return no value."""
    found = []
    for name, expression in asked():
        if not await server.values(expression):
            found.append(f"{name}: {expression}")
    return found


def asked() -> list[tuple[str, str]]:
    """Every query of a panel with its variables replaced, every variable, and every recorded series."""
    filled = [
        (name, expression.replace("$__rate_interval", "10s").replace("$model", ".*").replace("$budget", ".*"))
        for name, expression in queries()
    ]
    filled += [(name, f'{metric}{{{label}!=""}}') for name, metric, label in variables()]
    return filled + [(rule["record"], rule["record"]) for rule in rules() if "record" in rule]
