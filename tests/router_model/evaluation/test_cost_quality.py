"""Curves, hulls and intervals: checked by hand, by brute force and on cases with known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import cost_quality, metrics
from router_model.evaluation.cost_quality import Curve, Sweep

TWO = Curve(np.array([100.0, 300.0]), np.array([0.6, 0.8]))

tables = st.integers(0, 10_000).map(np.random.default_rng)


def outcomes(random: np.random.Generator, prompts: int = 12, tiers: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong, and tokens that mostly rise with the tier."""
    correct = (random.random((prompts, tiers)) < np.linspace(0.3, 0.8, tiers)).astype(float)
    return correct, np.cumsum(random.integers(1, 50, (prompts, tiers)), axis=1).astype(float)


@given(tables)
def test_mix_is_the_best_pair(random: np.random.Generator) -> None:
    """The hull at a budget equals the best random mix of any two tiers that keeps to it."""
    tokens, correct = random.integers(1, 100, 4).astype(float), random.random(4)
    budget = float(random.uniform(tokens.min(), tokens.max()))

    best = max(correct[at] for at in range(4) if tokens[at] <= budget)
    for low, high in itertools.permutations(range(4), 2):
        if tokens[low] <= budget < tokens[high]:
            share = (budget - tokens[low]) / (tokens[high] - tokens[low])
            best = max(best, (1 - share) * correct[low] + share * correct[high])

    assert cost_quality.mix_at(Curve(tokens, correct), budget) == pytest.approx(best)


@given(tables)
def test_oracle_beats_every_allocation(random: np.random.Generator) -> None:
    """Swept over its own outcomes, the oracle at any budget is at least as good as any allocation."""
    correct, tokens = outcomes(random, prompts=5)
    rows = np.arange(5)
    curve = cost_quality.sweep(
        (correct, tokens), (correct, tokens), rows, cost_quality.prices(correct, tokens, 200)
    ).curve()

    for picks in itertools.product(range(3), repeat=5):
        spent, right = tokens[rows, picks].mean(), correct[rows, picks].mean()
        if spent >= curve.tokens[0]:
            assert cost_quality.at_budget(curve, spent).accuracy >= right - 1e-9


@given(tables)
def test_budget_is_kept(random: np.random.Generator) -> None:
    """No point read off a curve spends more than its budget, unless the cheapest tier alone does."""
    correct, tokens = outcomes(random)
    guess = (np.clip(correct + random.normal(0, 0.5, correct.shape), 0, 1), tokens * random.uniform(0.5, 2))
    swept = cost_quality.sweep(guess, (correct, tokens), np.arange(12)).curve()
    tiers = cost_quality.fixed(correct, tokens, np.arange(12)).curve()

    for extra in (0.0, 0.1, 0.5, 0.9, 1.0):
        budget = cost_quality.budget_of(tiers, extra)
        assert cost_quality.at_budget(swept, budget).tokens <= budget * (1 + 1e-9)


def test_between_two_prices() -> None:
    """A budget half way between two points gets the accuracy half way."""
    assert cost_quality.at_budget(TWO, 200) == cost_quality.Point(200, pytest.approx(0.7))


def test_budget_beyond_the_end() -> None:
    """A curve that ends before the budget spends and gets what its end does, and no more."""
    assert cost_quality.at_budget(TWO, 1_000) == cost_quality.Point(300, 0.8)


def test_curve_that_turns_back() -> None:
    """Where tokens fall again later, the first crossing of the budget counts."""
    curve = Curve(np.array([1.0, 3.0, 2.0, 5.0]), np.array([0.1, 0.3, 0.9, 1.0]))

    assert cost_quality.at_budget(curve, 2) == cost_quality.Point(2, pytest.approx(0.2))


def test_tokens_for_an_accuracy() -> None:
    """The inverse of reading a curve; NaN for an accuracy that is never reached."""
    assert cost_quality.tokens_for(TWO, 0.7) == pytest.approx(200)
    assert cost_quality.tokens_for(TWO, 0.5) == 100
    assert math.isnan(cost_quality.tokens_for(TWO, 0.9))


def test_area_of_a_line() -> None:
    """The mean over budgets of a straight line is its middle."""
    assert cost_quality.area(TWO, 100, 300) == pytest.approx(0.7)


def test_mix_against_itself() -> None:
    """The straight mix of two tiers gains nothing, saves nothing and recovers half the gap on average."""
    found = metrics.measures(TWO, TWO, Curve(np.array([100.0, 150.0]), np.array([0.6, 0.9])))

    assert found["apgr"] == pytest.approx(0.5)
    for name in metrics.BUDGETS:
        assert found[f"gain_{name}"] == pytest.approx(0)
        assert found[f"saved_{name}"] == pytest.approx(0)
        assert found[f"gap_{name}"] == pytest.approx(0)
    assert found["aiq_gain"] == pytest.approx(0)


def test_the_oracle_against_itself() -> None:
    """The oracle closes the whole gap to the oracle."""
    best = Curve(np.array([100.0, 150.0]), np.array([0.6, 0.9]))

    assert metrics.measures(best, TWO, best)["gap_middle"] == pytest.approx(1)


def test_equal_tiers_have_no_gap_to_recover() -> None:
    """Shares of a gap that is not there are not numbers."""
    flat = Curve(np.array([1.0, 9.0]), np.array([0.5, 0.505]))

    assert math.isnan(metrics.measures(flat, flat)["apgr"])


@given(tables)
def test_prices_fall_and_reach_every_end(random: np.random.Generator) -> None:
    """The series begins with the cheapest for all, ends with the best for all, and falls between."""
    correct, tokens = outcomes(random)
    at = cost_quality.prices(correct, tokens)

    assert at[0] == np.inf
    assert at[-1] == 0
    assert (np.diff(at) < 0).all()


def test_bootstrap_pairs_methods() -> None:
    """The same method under two names differs from itself by exactly nothing, in every resample."""
    random = np.random.default_rng(0)
    correct, tokens = outcomes(random, prompts=60)
    rows = np.arange(60)
    swept = cost_quality.sweep((correct * 0.5 + 0.2, tokens), (correct, tokens), rows)
    tiers = [cost_quality.fixed(correct, tokens, rows)]

    found = metrics.bootstrap({"a": [swept], "b": [swept]}, tiers, None, 60, draws=20, seed=1)

    np.testing.assert_array_equal(found["a"]["gain_middle"], found["b"]["gain_middle"])
    assert np.ptp(found["a"]["gain_middle"]) > 0


def test_interval_covers_the_truth() -> None:
    """About 95 of 100 intervals for a mean gain, whose true value is known, contain it."""
    random = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        right = (random.random((150, 2)) < [0.4, 0.7]).astype(float)
        tokens = np.tile([1.0, 3.0], (150, 1))
        rows = np.arange(150)
        guess = np.tile([0.4, 0.7], (150, 1))  # knows nothing of prompts: takes the better tier for all
        swept = cost_quality.sweep((guess, tokens), (right, tokens), rows)
        tiers = cost_quality.fixed(right, tokens, rows)
        found = metrics.bootstrap(
            {"a": [swept]}, [tiers], None, 150, draws=60, seed=int(random.integers(1e9))
        )
        _, low, high = metrics.interval(found["a"]["accuracy_middle"])
        held += low <= 0.55 <= high

    assert 85 <= held <= 100


def test_interval_of_what_is_mostly_undefined() -> None:
    """No bounds are given when more than a tenth of the resamples have no value."""
    values = np.array([1.0, *[np.nan] * 5, *[1.0] * 15])

    assert math.isnan(metrics.interval(values)[1])


def test_calibration_error() -> None:
    """Zero for predictions that come true in every bin, and the distance for those that are off by it."""
    truth = np.repeat([0.0, 1.0], 50)

    assert metrics.calibration_error(truth, truth) == 0
    assert metrics.calibration_error(np.full(100, 0.7), truth) == pytest.approx(0.2)


def test_part_of_a_sweep() -> None:
    """Prompts that are not kept neither cost nor earn."""
    swept = Sweep(np.array([3, 1]), np.array([[5.0, 7.0]]), np.array([[1.0, 0.0]]))

    part = swept.within(np.array([False, True, True, False]))

    assert part.rows.tolist() == [1]
    assert part.curve() == ([7.0], [0.0])
