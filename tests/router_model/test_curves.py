"""Curves with thinking budgets can be read at any budget, and rise with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.head_parts import Curves, map_tiers
from router_model.predictor import TierLength

INPUTS = 5
budgets = st.lists(st.integers(0, 8_000), min_size=2, max_size=20, unique=True).map(sorted)
seeds = st.integers(0, 2**32 - 1)


def random_curves(lengths: list[int], seed: int) -> Curves:
    """Curves whose estimates for a random prompt go up and down with the budget."""
    draw = np.random.default_rng(seed)
    count = len(lengths)
    return Curves(
        name="m",
        tiers=tuple(map(str, lengths)),
        weights=draw.normal(0, 1, (INPUTS, 2 * count)).astype(np.float32),
        bias=draw.normal(0, 1, 2 * count).astype(np.float32),
        low=np.full(count, 1, np.float32),
        high=np.full(count, 10_000, np.float32),
        spread=np.ones(count, np.float32),
        shrink=1.0,
        offset=np.zeros(count, np.float32),
        average=np.full(count, 0.5, np.float32),
        by_length=np.zeros((2, count), np.float32),
        lengths={str(length): float(length) for length in lengths},
    )


@given(budgets, budgets, seeds)
def test_a_longer_thought_is_never_predicted_to_be_worse_or_cheaper(
    measured: list[int], asked: list[int], seed: int
) -> None:
    """P(right) and tokens rise with the budget for any curves, prompt and ladder, and stay within limits."""
    curves = random_curves(measured, seed)
    inputs = np.random.default_rng(seed + 1).normal(0, 1, (3, INPUTS)).astype(np.float32)
    tiers = [TierLength(str(budget), budget, 16) for budget in asked]

    correct, tokens = map_tiers(curves, None, tiers).outcomes(inputs)

    assert (np.diff(correct, axis=1) >= 0).all()
    assert (np.diff(tokens, axis=1) >= 0).all()
    assert ((correct >= 0) & (correct <= 1)).all()
    assert (tokens <= [tier.thinking + tier.answer for tier in tiers]).all()


@given(budgets, seeds)
def test_at_a_measured_budget_it_is_what_was_fitted(measured: list[int], seed: int) -> None:
    """Read at its own budgets, a ladder gives its running maximum, which changes nothing where it rises."""
    curves = random_curves(measured, seed)
    inputs = np.zeros(INPUTS, np.float32)
    tiers = [TierLength(str(budget), budget, 20_000) for budget in measured]

    correct, tokens = map_tiers(curves, None, tiers).outcomes(inputs)

    fitted = curves.outcomes(inputs)
    assert correct == pytest.approx(np.maximum.accumulate(fitted[0]), abs=1e-6)
    assert tokens == pytest.approx(np.maximum.accumulate(fitted[1]), rel=1e-6)
