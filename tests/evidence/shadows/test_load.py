"""When the load of clients leaves room for shadow requests."""

from __future__ import annotations

import pytest

from gateway.config.models import Replica
from gateway.evidence.shadows.load import FEW_CLIENTS, PoolLoad
from gateway.upstream.pool import Backend, Pool

HOUR = 3600.0


@pytest.fixture
def pool() -> Pool:
    """A pool of one replica."""
    return Pool("tiny", "tiny", [Backend("a", Replica.model_validate({"url": "http://a"}))])


def busy(load: PoolLoad, pool: Pool, in_flight: int, now: float = 0.0, own: int = 0) -> bool:
    pool.backends[0].in_flight = in_flight
    return load.busy(pool, own, now)


def test_few_requests_leave_room(pool: Pool) -> None:
    """A pool that has shown nothing yet may carry a few."""
    load = PoolLoad()
    assert not busy(load, pool, FEW_CLIENTS)
    assert busy(load, pool, FEW_CLIENTS + 1)


def test_half_of_what_it_has_carried(pool: Pool) -> None:
    load = PoolLoad()
    assert busy(load, pool, 100)
    assert not busy(load, pool, 50)
    assert busy(load, pool, 51)


def test_own_requests_do_not_count(pool: Pool) -> None:
    load = PoolLoad()
    assert not busy(load, pool, FEW_CLIENTS + 3, own=3)


def test_it_forgets(pool: Pool) -> None:
    """What was carried hours ago says little about now."""
    load = PoolLoad()
    busy(load, pool, 100)
    assert not busy(load, pool, 50, 1.5 * HOUR)
    busy(load, pool, 10, 3 * HOUR)
    assert busy(load, pool, 50, 3.1 * HOUR)


def test_a_replica_in_trouble(pool: Pool) -> None:
    """An open breaker or a replica that fails its checks leaves the others no room to spare."""
    load = PoolLoad()
    pool.backends[0].breaker.opened_at = 1.0
    assert busy(load, pool, 0)
    pool.backends[0].breaker.opened_at = None
    pool.backends[0].healthy = False
    assert busy(load, pool, 0)
    pool.backends[0].healthy = True
    assert not busy(load, pool, 0)
