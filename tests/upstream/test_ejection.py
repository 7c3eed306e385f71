"""A replica is left out for what several clients met, never for what one client did to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.ejection import ReplicaBreaker


def fail(breaker: ReplicaBreaker, clients: str, now: float = 0, *, suspect: bool = False) -> None:
    """Failures of these clients in this order, each with a request of its own."""
    for number, client in enumerate(clients):
        breaker.record_failure(client, b"%d" % number, now, suspect=suspect)


@pytest.mark.parametrize(
    ("clients", "state"),
    [
        ("x" * 100, "closed"),
        ("xyxy", "closed"),
        ("xyxyx", "open"),
        ("xxxyy", "open"),
        ("y" + "x" * 100, "closed"),
        ("vwxyz", "open"),
    ],
)
def test_several_clients_open_it(clients: str, state: str) -> None:
    """Five failures open it, of which one client has three at most."""
    breaker = ReplicaBreaker(limit=5)
    fail(breaker, clients)

    assert breaker.state(0) == state
    assert breaker.openings == (state == "open")


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.booleans(), st.floats(0, 5))), st.integers(1, 8))
def test_one_client_alone_opens_nothing(outcomes: list[tuple[str, bool, float]], limit: int) -> None:
    """Whatever one client does and when, others that are served keep the replica."""
    breaker, now = ReplicaBreaker(limit=limit), 0.0
    for number, (client, good, pause) in enumerate(outcomes):
        now += pause
        if client == "x" and not good:
            breaker.record_failure("x", b"%d" % number, now, suspect=False)
        else:
            breaker.record_success(client, now)

        assert breaker.state(now) == "closed"


def test_the_same_request_counts_once() -> None:
    """A client that repeats a request that cannot be served proves nothing new."""
    breaker = ReplicaBreaker(limit=4)
    for client in "xyxyxyxyxy":
        breaker.record_failure(client, b"same", 0, suspect=False)

    assert breaker.state(0) == "closed"


def test_others_that_are_served_are_witnesses() -> None:
    """If more clients are served than fail, their requests are at fault rather than the replica."""
    breaker = ReplicaBreaker(limit=4)
    fail(breaker, "x", now=0)
    for client in "abc":
        breaker.record_success(client, 1)
    fail(breaker, "yxy", now=2)
    assert breaker.state(2) == "closed"

    fail(breaker, "z", now=3)
    assert breaker.state(3) == "open"


def test_clients_served_before_the_first_failure_are_no_witnesses() -> None:
    """A replica that has just broken had served everybody before."""
    breaker = ReplicaBreaker(limit=4)
    for client in "abcdefgh":
        breaker.record_success(client, 1)
    fail(breaker, "xyxy", now=2)

    assert breaker.state(2) == "open"


def test_old_failures_are_forgotten() -> None:
    """What a client met half a minute ago does not count."""
    breaker = ReplicaBreaker(limit=4)
    fail(breaker, "xx", now=0)
    fail(breaker, "yy", now=31)

    assert breaker.state(31) == "closed"


def test_success_clears_only_ones_own_failures() -> None:
    """A client that is served has no failures in a row any more; the others still have theirs."""
    breaker = ReplicaBreaker(limit=3)
    fail(breaker, "xy")
    breaker.record_success("x", 0)
    fail(breaker, "x")
    assert breaker.state(0) == "closed"
    breaker.record_failure("y", b"another", 0, suspect=False)

    assert breaker.state(0) == "open"


def test_failing_health_checks_are_a_witness() -> None:
    """While the last health check failed too, one client is enough."""
    breaker = ReplicaBreaker(limit=5)
    fail(breaker, "xxxx", suspect=True)
    assert breaker.state(0) == "closed"
    breaker.record_failure("x", b"fifth", 0, suspect=True)

    assert breaker.state(0) == "open"


def test_connections_in_a_row() -> None:
    """A connection that opens in between starts the count anew."""
    breaker = ReplicaBreaker(limit=2)
    breaker.record_unreachable(0)
    breaker.record_failure("x", b"1", 0, suspect=False)
    breaker.record_unreachable(0)
    assert breaker.state(0) == "closed"
    breaker.record_unreachable(0)

    assert breaker.state(0) == "open"


def opened() -> ReplicaBreaker:
    """A breaker that opened at 0 s and is half open from 10 s."""
    breaker = ReplicaBreaker(limit=2, open_seconds=10)
    fail(breaker, "xy")
    return breaker


def test_a_trial_decides() -> None:
    """In the half-open state one request is allowed; its outcome closes or re-opens the breaker."""
    breaker = opened()
    assert [breaker.state(now) for now in (0, 9.99, 10)] == ["open", "open", "half_open"]
    assert [breaker.allows(now) for now in (0, 9.99, 10)] == [False, False, True]
    breaker.begin_attempt(10)
    assert not breaker.allows(10)
    breaker.abandon()
    assert breaker.allows(10)

    breaker.begin_attempt(10)
    fail(breaker, "z", now=12)
    assert [breaker.state(now) for now in (12, 21.9, 22)] == ["open", "open", "half_open"]
    assert breaker.openings == 1

    breaker.record_success("z", 22)
    assert breaker.state(22) == "closed"


def test_a_stream_that_began_closes_it_for_now() -> None:
    """The first byte lets requests through again, but only its end clears the client's failures."""
    breaker = opened()
    breaker.begin_attempt(10)
    breaker.response_started()
    assert breaker.allows(10)
    fail(breaker, "z", now=11)

    assert breaker.state(11) == "open"


def test_memory_is_bounded() -> None:
    """However many clients come, 256 are remembered, the latest."""
    breaker = ReplicaBreaker(limit=5)
    for number in range(1_000):
        breaker.record_success(f"client {number}", 0)
        breaker.record_failure("x", b"%d" % number, 0, suspect=False)

    assert len(breaker._runs) == 256
    assert len(breaker._runs["x"].causes) == 5
