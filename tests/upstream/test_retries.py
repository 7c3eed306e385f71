"""Further attempts stay within a fifth of the requests, and lost requests are not sent to another replica."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BackendDisconnected,
    BackendError,
    BackendOverloaded,
    BackendTimeout,
    GatewayError,
    InvalidRequest,
    NoBackend,
)
from gateway.upstream.retries import RetryBudget, may_move_on

pauses = st.lists(st.floats(0, 4), min_size=1, max_size=200)


@given(pauses, st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.integers(1, 5))
def test_share(waits: list[float], share: float, wanted: int) -> None:
    """In any ten seconds, retries are within the share of the requests around them, or three."""
    budget, now = RetryBudget(share), 0.0
    requests: list[float] = []
    retries: list[float] = []
    for wait in waits:
        now += wait
        budget.count_request(now)
        requests.append(now)
        for _ in range(wanted):
            if budget.take(now):
                retries.append(now)

        recent = sum(at > now - 10 for at in retries)
        around = sum(at > now - 20 for at in requests)
        assert recent <= max(6, 2 * share * around)
    assert len(retries) + budget.refused == wanted * len(waits)


def test_a_quiet_model_has_three() -> None:
    """A model with few requests has three further attempts in a window, and again later."""
    budget = RetryBudget(0.2)
    budget.count_request(0)
    assert [budget.take(0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(9.9)
    assert budget.take(25)
    assert budget.refused == 2


def test_a_busy_model_has_a_fifth() -> None:
    """A hundred requests that all fail make twenty further attempts."""
    budget = RetryBudget(0.2)
    taken = 0
    for number in range(100):
        budget.count_request(number / 100)
        taken += budget.take(number / 100)

    assert taken == 20


@pytest.mark.parametrize(
    ("failures", "moves", "resent"),
    [
        ([NoBackend("m")], True, True),
        ([NoBackend("m")] * 9, True, True),
        ([BackendOverloaded("m")], True, True),
        ([BackendOverloaded("m"), NoBackend("m")], True, True),
        ([BackendOverloaded("m"), BackendOverloaded("m")], False, False),
        ([BackendDisconnected("m")], False, True),
        ([BackendTimeout("m")], False, True),
        ([BackendError("m")], False, False),
        ([BackendError("m", spent=True)], False, False),
        ([InvalidRequest("m")], False, False),
    ],
)
def test_what_moves_on(failures: list[GatewayError], moves: bool, resent: bool) -> None:
    """A refusal that another replica may not repeat moves on; a lost request only if the operator says so."""
    assert may_move_on(failures, resend_lost=False) is moves
    assert may_move_on(failures, resend_lost=True) is resent
