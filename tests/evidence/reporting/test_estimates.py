"""Savings and right answers by arm: formulas against plain loops, and coverage where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.reporting.estimates import (
    FEWEST_CONVERSATIONS,
    NOTHING,
    ClusterSums,
    right_of,
    saving_of,
    shares_differ,
    variance_of,
)
from router_model.arrays import Floats

Conversation = Sequence[float]
"""The amounts of its requests."""


def sums(conversations: Sequence[Conversation]) -> ClusterSums:
    """What the store adds up."""
    n = [len(each) for each in conversations]
    y = [math.fsum(each) for each in conversations]
    return ClusterSums(
        len(n),
        sum(n),
        math.fsum(y),
        sum(k * k for k in n),
        math.fsum(a * a for a in y),
        math.fsum(a * k for a, k in zip(y, n, strict=True)),
    )


amounts = st.lists(st.lists(st.integers(0, 5_000), min_size=1, max_size=6), min_size=2, max_size=40)


@given(amounts)
def test_variance_is_that_of_the_residuals(conversations: list[list[int]]) -> None:
    """The sums give what a loop over conversations gives."""
    requests = sum(map(len, conversations))
    mean = sum(map(sum, conversations)) / requests
    residual = sum((sum(each) - mean * len(each)) ** 2 for each in conversations)
    count = len(conversations)

    expected = count / (count - 1) * residual / requests**2
    assert variance_of(sums(conversations)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_single_requests_have_the_usual_variance() -> None:
    """With one request per conversation it is s² / n."""
    values = [float(value) for value in range(50)]

    assert variance_of(sums([[value] for value in values])) == pytest.approx(np.var(values, ddof=1) / 50)


def test_twice_the_same_request_is_no_more_evidence() -> None:
    """Saying everything twice within a conversation leaves every interval as it was."""
    once = [[float(i % 17)] for i in range(60)], [[float(i % 23)] for i in range(40)]
    twice = [[each * 2 for each in arm] for arm in once]

    assert saving_of(*map(sums, twice)).per_request == saving_of(*map(sums, once)).per_request


def test_savings_have_a_sign() -> None:
    """An adaptive arm that needs more has saved a negative amount."""
    cheap, dear = [[100.0 + i % 5] for i in range(100)], [[200.0 + i % 5] for i in range(50)]

    saved, wasted = saving_of(sums(cheap), sums(dear)), saving_of(sums(dear), sums(cheap))

    assert saved.per_request
    assert saved.total
    assert saved.share
    assert wasted.per_request
    assert wasted.share
    assert saved.per_request.mean == 100
    assert saved.total.mean == 10_000
    assert saved.share.mean == pytest.approx(100 / 202)
    assert (wasted.per_request.mean, wasted.per_request.high < 0, wasted.share.high < 0) == (-100, True, True)


def test_few_conversations_are_not_enough() -> None:
    """Below 30 conversations in one arm nothing is said about a difference, however many the requests."""
    many, few = sums([[1.0]] * FEWEST_CONVERSATIONS), sums([[1.0] * 100] * (FEWEST_CONVERSATIONS - 1))

    for arms in ((many, few), (few, many), (many, NOTHING)):
        assert saving_of(*arms).per_request is None
        assert right_of(*arms).difference is None
    assert saving_of(many, many).per_request is not None
    assert saving_of(many, few).holdout.mean == 1


def test_all_right_is_not_certain() -> None:
    """Arms without a single wrong answer still have intervals, of one answer per conversation."""
    found = right_of(sums([[1.0] * 9] * 40), sums([[1.0]] * 40))

    assert found.difference
    assert (found.difference.mean, found.difference.low) == (0, pytest.approx(-0.0876, abs=1e-4))
    assert found.difference.high == pytest.approx(0.0876, abs=1e-4)


def drawn(n: Floats, y: Floats) -> ClusterSums:
    """The sums over conversations of n requests that amount to y."""
    return ClusterSums(len(n), int(n.sum()), *(float(each.sum()) for each in (y, n * n, y * y, y * n)))


def test_intervals_cover_the_truth() -> None:
    """Of intervals of 60 held-out conversations with heavy tails, some 95 % have the truth."""
    rng = np.random.default_rng(5)
    rounds, each, share, right = 800, 0, 0, 0
    for _ in range(rounds):
        used, judged = [], []
        for count, mean in ((200, 300.0), (60, 500.0)):
            sizes = rng.geometric(0.4, count)
            own = mean * rng.lognormal(-0.18, 0.6, count)
            used.append(drawn(sizes, rng.gamma(sizes, own)))
            judged.append(drawn(sizes, rng.binomial(sizes, rng.beta(4, 1, count))))
        saved, difference = saving_of(*used), right_of(*judged).difference
        assert saved.per_request
        assert saved.share
        assert difference
        each += saved.per_request.low <= 200 <= saved.per_request.high
        share += saved.share.low <= 0.4 <= saved.share.high
        right += difference.low <= 0 <= difference.high

    assert 0.92 <= each / rounds <= 0.98
    assert 0.92 <= share / rounds <= 0.98
    assert 0.92 <= right / rounds <= 0.99


def test_a_changed_share_is_noticed() -> None:
    """Chance alone is not taken for a change."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(500):
        held = rng.binomial(1_000, 0.1, 6)
        alarms += shares_differ([(1_000 - int(k), int(k)) for k in held])

    assert alarms <= 5
    assert shares_differ([(900, 100), (500, 500)])
    assert not shares_differ([(900, 100)])
    assert not shares_differ([(0, 0), (0, 0)])
