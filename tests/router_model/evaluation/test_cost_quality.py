"""Curves and points on them: checked by hand, by brute force and on cases with known answers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import cost_quality
from router_model.evaluation.cost_quality import Curve, Sweep

TWO = Curve(np.array([100.0, 300.0]), np.array([0.6, 0.8]))

tables = st.integers(0, 10_000).map(np.random.default_rng)


def outcomes(random: np.random.Generator, prompts: int = 12, tiers: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong, and tokens that mostly rise with the tier."""
    correct = (random.random((prompts, tiers)) < np.linspace(0.3, 0.8, tiers)).astype(float)
    return correct, np.cumsum(random.integers(1, 50, (prompts, tiers)), axis=1).astype(float)


@given(tables)
def test_mix_is_the_best_pair(random: np.random.Generator) -> None:
    """The hull at a budget equals the best random mix of two tiers within it."""
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
    """Beyond its end a curve spends and earns what it does at its end."""
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


@given(tables)
def test_prices_fall_and_reach_every_end(random: np.random.Generator) -> None:
    """The series falls from infinity (cheapest tier for all) to 0 (best tier for all)."""
    correct, tokens = outcomes(random)
    at = cost_quality.prices(correct, tokens)

    assert at[0] == np.inf
    assert at[-1] == 0
    assert (np.diff(at) < 0).all()


def test_part_of_a_sweep() -> None:
    """Prompts that are left out count neither as tokens nor as correctness."""
    swept = Sweep(np.array([3, 1]), np.array([[5.0, 7.0]]), np.array([[1.0, 0.0]]))

    part = swept.within(np.array([False, True, True, False]))

    assert part.rows.tolist() == [1]
    assert part.curve() == ([7.0], [0.0])
