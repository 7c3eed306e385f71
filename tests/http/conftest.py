"""Fixtures for the tests over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis import RealRedis, real_redis


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RealRedis]:
    """One real Redis per test file. Tests empty it before they start."""
    with real_redis() as server:
        yield server
