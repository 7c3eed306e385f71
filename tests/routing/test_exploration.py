"""Exploration draws every tier with the probability that is recorded for it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.exploration import Draw, explore, propensity

tiers = st.lists(st.integers(0, 6), min_size=1, max_size=5, unique=True).map(sorted)


@settings(max_examples=20)
@given(tiers, st.floats(0, 1), st.data())
def test_propensities_are_shares_of_a_uniform_draw(eligible, epsilon, data) -> None:
    """Over evenly spread random numbers, every tier is drawn as often as its probability says."""
    best = data.draw(st.sampled_from(eligible))
    draws = [explore(best, eligible, epsilon, (k + 0.5) / 1000) for k in range(1000)]

    for tier, probability in draws[0].probabilities.items():
        assert sum(draw.rung == tier for draw in draws) / 1000 == pytest.approx(probability, abs=0.003)


@given(tiers, st.floats(0, 1), st.data())
def test_propensities_after_the_limiter_sum_to_one(eligible, epsilon, data) -> None:
    """Whatever the limiter makes of each draw, the propensities of its results add up to 1."""
    best = data.draw(st.sampled_from(eligible))
    grants = {drawn: data.draw(st.none() | st.sampled_from(eligible)) for drawn in eligible}
    draw = explore(best, eligible, epsilon, 0.5)
    found = {granted: propensity(draw, granted, grants.__getitem__) for granted in [None, *eligible]}

    assert math.fsum(found.values()) == pytest.approx(1)
    assert all(found[rung] == 0 for rung in eligible if rung not in grants.values())


def test_no_exploration_is_certain() -> None:
    """With ε = 0 the best rung is drawn, and the limiter's result follows, with probability 1."""
    draw = explore(2, (0, 1, 2), 0.0, 0.0)

    assert draw == Draw(2, {0: 0.0, 1: 0.0, 2: 1.0})
    assert propensity(draw, 2, lambda drawn: drawn) == 1
    assert propensity(draw, 1, lambda drawn: min(drawn, 1)) == 1
