"""Intervals hold what they promise, also at the ends and with several samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.measuring.intervals import average, paired, prompts_needed, share

RNG = np.random.default_rng


def test_wilson() -> None:
    """For single answers it is Wilson's interval: 8 of 10 gives 49.0 to 94.3 %."""
    estimate = share(np.array([1.0] * 8 + [0.0] * 2))

    assert estimate.mean == 0.8
    assert (round(estimate.low, 3), round(estimate.high, 3)) == (0.490, 0.943)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_alike(right: float) -> None:
    """If all are right or all are wrong, the interval still has a width: 20 prompts leave 16 %."""
    estimate = share(np.full(20, right), most=4)

    assert (estimate.low == 0.0) == (right == 0.0)
    assert round(estimate.high - estimate.low, 2) == 0.16


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40), st.integers(1, 4))
def test_bounds(scores: list[float], most: int) -> None:
    """An interval holds its mean, and lies in [0, 1]."""
    estimate = share(np.array(scores), most)

    assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("right", [0.1, 0.5, 0.9])
def test_coverage_of_shares(samples: int, right: float) -> None:
    """At least 92 % of the intervals hold the truth, when prompts differ and have several samples."""
    rng, held = RNG(1), 0
    for _ in range(1000):
        chance = rng.beta(2 * right, 2 * (1 - right), 80)
        scores = rng.binomial(samples, chance) / samples
        estimate = share(scores, samples)
        held += estimate.low <= right <= estimate.high

    assert held >= 920


def test_coverage_of_differences() -> None:
    """At least 93 % of the intervals of a small difference hold it, and it has a width without any."""
    rng, held = RNG(2), 0
    for _ in range(1000):
        kind = rng.choice(3, 100, p=[0.06, 0.02, 0.92])
        first, second = (kind == 0).astype(float), (kind == 1).astype(float)
        estimate = paired(first, second)
        held += estimate.low <= 0.04 <= estimate.high
    same = paired(np.ones(100), np.ones(100))

    assert held >= 930
    assert same.mean == 0
    assert same.low < -0.02 < 0.02 < same.high


def test_prompts_needed_is_enough() -> None:
    """With as many prompts as it says, about 80 % of all trials show the difference."""
    rng, shares = RNG(3), [0.13, 0.08]
    kind = rng.choice(3, 20_000, p=[*shares, 1 - sum(shares)])
    pilot = (kind == 0).astype(float), (kind == 1).astype(float)
    needed = prompts_needed(0.05, *pilot)
    assert needed is not None

    found = 0
    for _ in range(1000):
        kind = rng.choice(3, needed, p=[*shares, 1 - sum(shares)])
        found += paired((kind == 0).astype(float), (kind == 1).astype(float)).low > 0

    assert 760 <= found <= 840


def test_averages() -> None:
    """The mean of numbers with the normal interval; one number has no interval, none has no mean."""
    estimate = average(np.array([1.0, 2.0, 3.0]))

    assert estimate.mean == 2
    assert round(estimate.high - 2, 3) == round(1.96 / math.sqrt(3), 3)
    assert math.isinf(average(np.array([5.0])).high)
    assert (average(np.array([])).prompts, share(np.array([])).prompts) == (0, 0)
    assert paired(np.array([]), np.array([])).prompts == 0
    assert prompts_needed(0.02, np.array([1.0]), np.array([0.0])) is None
