"""Fixtures for the tests over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.fakes.backend import Backend
from tests.http.governed import governed
from tests.redis import RealRedis, real_redis
from tests.serving import Running


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
