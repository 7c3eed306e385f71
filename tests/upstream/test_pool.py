"""Which replica gets the next request, and how its outcomes change its health."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.models import Replica
from gateway.errors import (
    BackendDisconnected,
    BackendOverloaded,
    BackendTimeout,
    ClientClosed,
    InvalidRequest,
    NoBackend,
)
from gateway.upstream.ejection import ReplicaBreaker
from gateway.upstream.pool import Backend, Pool


def backend(name: str, in_flight: int = 0, last_used: float = 0.0, healthy: bool | None = True) -> Backend:
    return Backend(
        name,
        Replica(url="http://a"),
        ReplicaBreaker(limit=1),
        healthy,
        in_flight=in_flight,
        last_used=last_used,
    )


backends = st.lists(
    st.builds(
        backend,
        st.text("abcdefgh", min_size=1, max_size=3),
        st.integers(0, 3),
        st.integers(0, 3).map(float),
        st.sampled_from([True, True, None, False]),
    ),
    max_size=6,
    unique_by=lambda entry: entry.name,
)


def test_fewest_requests_outstanding() -> None:
    """The least busy replica is picked; of equally busy ones, the one unused for longest."""
    pool = Pool("m", "m", [backend("a", 2), backend("b", 1, 9.0), backend("c", 1, 5.0)])
    picked = pool.pick(0, set(), None)

    assert picked
    assert picked.name == "c"


@given(backends, st.sets(st.integers(0, 5)), st.none() | st.text(max_size=4))
def test_pick(members: list[Backend], tried_at: set[int], affinity: str | None) -> None:
    """Only usable replicas are picked, and none that was tried."""
    tried = {member for index, member in enumerate(members) if index in tried_at}
    usable = {member for member in members if member.healthy is not False}
    picked = Pool("m", "m", members).pick(0, tried, affinity)

    rivals = usable - tried
    if picked is None:
        assert not rivals
    else:
        assert picked in rivals
        if affinity is None:
            assert (picked.in_flight, picked.last_used) == min((r.in_flight, r.last_used) for r in rivals)


@given(backends, st.text(max_size=8), st.randoms())
def test_affinity_ignores_load_and_order(members: list[Backend], value: str, rng: random.Random) -> None:
    """The same value goes to the same replica, regardless of its load and of the order of the list."""
    first = Pool("m", "m", members).pick(0, set(), value)
    shuffled = [backend(m.name, 3 - m.in_flight, healthy=m.healthy) for m in members]
    rng.shuffle(shuffled)
    again = Pool("m", "m", shuffled).pick(9, set(), value)

    assert (first and first.name) == (again and again.name)


@given(st.integers(2, 6), st.data())
def test_lost_replica_moves_only_its_own_sessions(count: int, data: st.DataObject) -> None:
    """When a replica goes away, the sessions of the others do not move."""
    members = [backend(f"r{index}") for index in range(count)]
    pool, values = Pool("m", "m", members), [f"session {index}" for index in range(40)]
    before = {value: pool.pick(0, set(), value) for value in values}
    lost = members[data.draw(st.integers(0, count - 1))]
    lost.healthy = False
    after = {value: pool.pick(0, set(), value) for value in values}

    assert all(after[value] is home for value, home in before.items() if home is not lost)
    assert lost not in after.values()


def test_affinity_spreads_sessions() -> None:
    """With many sessions, every replica gets some."""
    members = [backend(name) for name in "abc"]
    picks = {Pool("m", "m", members).pick(0, set(), f"s{index}") for index in range(100)}

    assert picks == set(members)


def test_open_breaker_is_left_out() -> None:
    """A replica whose breaker is open gets no request until `open_seconds` have passed."""
    first, second = backend("a"), backend("b", in_flight=9)
    first.breaker.opened_at = 0
    pool = Pool("m", "m", [first, second])

    assert pool.pick(9, set(), None) is second
    assert pool.pick(9, {second}, None) is None
    assert pool.pick(10, set(), None) is first


@given(st.lists(st.none() | st.floats(0, 9), min_size=1, max_size=8), st.integers(0, 3))
def test_breakers_leave_out_half_at_most(opened: list[float | None], dead: int) -> None:
    """Of the replicas that pass their health checks, at least half may get requests; no dead one may."""
    members = [backend(str(number)) for number in range(len(opened))]
    for member, at in zip(members, opened, strict=True):
        member.breaker.opened_at = at
    gone = [backend(f"dead {number}", healthy=False) for number in range(dead)]
    pool, able, tried = Pool("m", "m", [*members, *gone]), set[Backend](), set[Backend]()
    while picked := pool.pick(9.5, tried, None):
        able.add(picked)
        tried.add(picked)

    closed = {member for member in members if member.breaker.opened_at is None}
    assert closed <= able <= set(members)
    assert len(able) == max(len(closed), (len(members) + 1) // 2)


@pytest.mark.parametrize(
    ("results", "healthy"),
    [
        ([True], True),
        ([False], False),
        ([True, False], True),
        ([True, False, False], False),
        ([True, False, True, False], True),
        ([False, True], True),
        ([True, False, False, True], True),
    ],
)
def test_health(results: list[bool], healthy: bool) -> None:
    """The first check decides alone; later, two failures in a row are needed, and one success is enough."""
    member = backend("a", healthy=None)
    for alive in results:
        member.checked(alive=alive, failures=2)

    assert member.healthy is healthy


def unreachable() -> NoBackend:
    failure = NoBackend("m")
    failure.reached = False
    return failure


def stale() -> BackendDisconnected:
    failure = BackendDisconnected("m")
    failure.stale = True
    return failure


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        (unreachable(), "open"),
        (NoBackend("m"), "open"),
        (BackendDisconnected("m"), "open"),
        (BackendTimeout("m"), "open"),
        (stale(), "closed"),
        (BackendOverloaded("m"), "closed"),
        (InvalidRequest("m"), "closed"),
        (ClientClosed("m"), "closed"),
        (asyncio.CancelledError(), "closed"),
    ],
)
def test_only_faults_of_the_replica_count(failure: BaseException, state: str) -> None:
    """A failed request frees its slot; the breaker counts it only if the replica may be at fault."""
    member = backend("a")
    for client in "xy":
        member.start_request(5.0)
        assert (member.in_flight, member.last_used) == (1, 5.0)
        member.fail_request(failure, client, b"", 6.0)

    assert member.in_flight == 0
    assert member.breaker.state(6.0) == state


@pytest.mark.parametrize(
    ("failure", "state"), [(BackendOverloaded("m"), "half_open"), (InvalidRequest("m"), "closed")]
)
def test_what_a_try_proves(failure: BaseException, state: str) -> None:
    """On trial, a replica that refuses a request is back; one that responds 429 has proved nothing."""
    member = backend("a")
    member.breaker.opened_at = 0
    member.start_request(10)
    member.fail_request(failure, "x", b"", 10)

    assert member.breaker.state(10) == state
    assert member.breaker.allows(10)


def test_who_may_have_killed_an_engine() -> None:
    """Requests sent before the engine was known to be gone may have; later ones may go elsewhere."""
    member, gone = backend("a"), BackendDisconnected("m")

    assert member.interpret(gone, sent=1, now=2) is gone
    assert member.interpret(gone, sent=1.5, now=3) is gone
    assert isinstance(member.interpret(gone, sent=2.5, now=3), NoBackend)
    member.checked(alive=True, failures=2, begun=4)
    assert member.interpret(gone, sent=5, now=6) is gone
    assert isinstance(member.interpret(gone, sent=7, now=8), NoBackend)
    assert member.interpret(refused := InvalidRequest("m"), sent=9, now=9) is refused


@pytest.mark.parametrize(("stated", "context"), [([], None), ([None], None), ([4096, None, 2048], 2048)])
def test_context_of_a_pool(stated: list[int | None], context: int | None) -> None:
    """Any replica may be picked, so the smallest stated context applies."""
    members = [backend(str(index)) for index in range(len(stated))]
    for member, size in zip(members, stated, strict=True):
        member.context = size

    assert Pool("m", "m", members).context == context
