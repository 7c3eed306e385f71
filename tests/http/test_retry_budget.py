"""Further attempts are bounded, so that overloaded replicas do not get more load for being overloaded."""

from __future__ import annotations

import pytest

from tests.fakes.fault import Fault
from tests.http.wire import asked, post, replicated


@pytest.mark.parametrize(("count", "retries"), [(2, 2), (5, 10)])
@pytest.mark.parametrize("fault", [Fault(status=429), Fault(status=503)])
async def test_overloaded_replicas_do_not_get_several_times_the_load(
    count: int, retries: int, fault: Fault
) -> None:
    """At most a fifth more attempts than requests are made, and a few for a quiet model."""
    settings = {"retries": retries, "breaker": {"failures": 1_000}}
    async with replicated(count, **settings) as (running, backends):
        for backend in backends:
            backend.default = fault
        statuses = [(await post(running)).status for _ in range(60)]
        metrics = await running.metrics()

        assert set(statuses) == {fault.status}
        further = sum(len(asked(backend)) for backend in backends) - 60
        assert 3 <= further <= 12
        assert metrics['thinkmeter_upstream_retries_total{model="tiny"}'] == further
        assert metrics['thinkmeter_upstream_retries_refused_total{model="tiny"}'] >= 60 - further


async def test_a_dead_replica_fails_no_request() -> None:
    """Attempts at a replica that refuses connections are not limited: nothing was sent to it."""
    unchecked = {"interval": 3_600, "timeout": 20}
    async with replicated(health=unchecked, breaker={"failures": 1_000}) as (running, (a, b)):
        await a.down()
        statuses = [(await post(running)).status for _ in range(30)]

        assert statuses == [200] * 30
        assert (len(asked(a)), len(asked(b))) == (0, 30)
