"""Fixtures for the tests over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream import arriving, lane
from gateway.upstream.lane import Passage
from tests.fakes.backend import Backend
from tests.http.governed import governed
from tests.http.shadowing import SHADOW
from tests.redis import RealRedis, real_redis
from tests.router_model.native.kernels import needed_kernel
from tests.serving import Running, configuration, serving


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RealRedis]:
    """One real Redis per test file. Tests empty it before they start."""
    with real_redis() as server:
        yield server


@pytest.fixture
async def completion(backend: Backend, redis_server: RealRedis) -> AsyncIterator[Running]:
    async with governed(backend, redis_server) as gateway:
        yield gateway


@pytest.fixture
async def total(backend: Backend, redis_server: RealRedis) -> AsyncIterator[Running]:
    async with governed(backend, redis_server, count="total", tokens=1_000_000) as gateway:
        yield gateway


@pytest.fixture
def shadow_sections(redis_server: RealRedis, tmp_path: Path) -> dict[str, Any]:
    """Sections under which every request is asked again at the tier `long`; its own one is `direct`."""
    redis_server.client().flushall()
    return {
        "redis": {"url": redis_server.url},
        "evidence": {"file": str(tmp_path / "evidence.db")},
        "shadow": SHADOW,
        "price": 1000,
    }


@pytest.fixture
async def shadowed(backend: Backend, shadow_sections: dict[str, Any]) -> AsyncIterator[Running]:
    async with serving(configuration(backend.url, **shadow_sections)) as running:
        yield running


@pytest.fixture
def passages(monkeypatch: pytest.MonkeyPatch) -> list[Passage]:
    """Every time that a stream passed in C."""
    if needed_kernel().lane is None:
        pytest.skip("the system has no epoll")
    monkeypatch.setattr(lane, "kernel", needed_kernel)
    monkeypatch.setattr("gateway.openai_api.repetitions.kernel", needed_kernel)
    lane._functions.cache_clear()
    seen: list[Passage] = []
    enter = arriving.enter

    def spy(*args: Any) -> Any:
        entered = enter(*args)
        if entered:
            seen.append(entered[1])
        return entered

    monkeypatch.setattr(arriving, "enter", spy)
    return seen
