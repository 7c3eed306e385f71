"""A Redis server and a store for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.store.store import Store
from tests.redis import (
    RealRedis,
    binaries,
    real_redis,
    running_store,
)


@pytest.fixture(params=list(binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RealRedis]:
    """A server for this test alone, one of each kind that is installed. It writes an append-only file."""
    with real_redis(binaries()[request.param], appendonly="yes") as running:
        yield running


@pytest.fixture
async def store(server: RealRedis) -> AsyncIterator[Store]:
    async with running_store(server.url, lease=2) as running:
        yield running
