"""The objectives of the second stage, against their definitions."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from router_model.allocation import allocate, demand
from router_model.arrays import Floats
from router_model.training.objectives import (
    OBJECTIVES,
    Shrunk,
    Worths,
    coupled,
    evidence,
    policy_gradient,
    softmax,
    spo_plus,
    tilt,
)

SHAPE = (6, 3)
values = arrays(float, SHAPE, elements=st.floats(-3, 3, width=16))
decisions = st.builds(Worths, values, values, values)


@given(values, values, st.floats(1e-3, 1e3))
def test_a_tilt_is_a_better_distribution(scores: Floats, worth: Floats, temperature: float) -> None:
    """Shares are not negative and sum to 1, and the expected worth is at least that of the reference."""
    reference = softmax(scores)
    shares = tilt(reference, worth, temperature)

    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert ((shares * worth).sum(axis=1) >= (reference * worth).sum(axis=1) - 1e-9).all()


@given(values, values)
def test_a_hot_tilt_is_its_reference(scores: Floats, worth: Floats) -> None:
    """At τ → ∞ nothing changes, and at τ → 0 only the best of the tiers is left."""
    reference = softmax(scores)

    np.testing.assert_allclose(tilt(reference, worth, 1e9), reference, atol=1e-7)
    cold = tilt(reference, worth, 1e-6)
    np.testing.assert_allclose((cold * worth).sum(axis=1), worth.max(axis=1), atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
@given(at=decisions)
def test_only_differences_between_tiers_matter(name: str, at: Worths) -> None:
    """The slope of every objective sums to 0 over the tiers of a prompt."""
    np.testing.assert_allclose(OBJECTIVES[name].slope(at).sum(axis=1), 0, atol=1e-6)


@given(decisions)
def test_policy_gradient_by_differences(at: Worths) -> None:
    """The slope is that of minus the expected worth, at a fixed temperature."""
    temperature = max(float(np.ptp(at.predicted, axis=1).mean()) / 20, 1e-4)

    def loss(moved: Floats) -> Floats:
        return -(softmax(moved / temperature) * at.worth).sum(axis=1)

    step = 1e-4 * temperature
    for tier, unit in enumerate(np.eye(SHAPE[1])):
        measured = (loss(at.predicted + step * unit) - loss(at.predicted - step * unit)) / (2 * step)
        np.testing.assert_allclose(
            policy_gradient(at)[:, tier] * temperature, measured * temperature, atol=1e-5
        )


@given(decisions, values)
def test_spo_plus_bounds_the_regret_and_is_convex(at: Worths, other: Floats) -> None:
    """The loss is never below the regret of the decision, and never below its tangents."""
    best = at.worth.argmax(axis=1)
    each = np.arange(len(best))

    def loss(predicted: Floats) -> Floats:
        most = (2 * predicted - at.worth).max(axis=1)
        return most - 2 * predicted[each, best] + at.worth[each, best]

    regret = at.worth.max(axis=1) - at.worth[each, at.predicted.argmax(axis=1)]
    tangent = loss(at.predicted) + (spo_plus(at) * (other - at.predicted)).sum(axis=1)

    assert (loss(at.predicted) >= regret - 1e-9).all()
    assert (loss(other) >= tangent - 1e-9).all()


def test_a_coupled_batch_pays_its_own_dual_prices() -> None:
    """All prompts of a batch share a price, which the exact allocation of the batch has at some budget."""
    draw = np.random.default_rng(0)
    tokens = np.cumsum(draw.uniform(1, 100, (300, 3)), axis=1)
    seen = Shrunk(draw.uniform(0, 1, (300, 3)), tokens, np.array([1.0, 0.1]))

    for rows, price in islice(coupled(seen, draw), 20):
        batch = np.unique(rows)
        budgets, prices = demand(seen.correct[batch], tokens[batch])
        for paid in np.unique(price):
            assert len(np.unique(rows[price[:, 0] == paid])) == len(batch)
            at = int(np.flatnonzero(np.isclose(prices, paid))[0])
            spent = budgets[at] - 1e-6  # the last step is then left unfinished
            assert np.isclose(allocate(seen.correct[batch], tokens[batch], spent).price, paid)


def test_a_coupled_batch_without_steps_draws_prices() -> None:
    """If the cheapest tier is best for every prompt, prices come from the evidence."""
    seen = Shrunk(np.tile([0.9, 0.1], (30, 1)), np.tile([1.0, 2.0], (30, 1)), np.array([2.0, 0.5]))
    rows, price = next(coupled(seen, np.random.default_rng(0)))

    assert rows.tolist() == list(range(30))
    assert ((price >= 0.5) & (price <= 2.0)).all()


def test_evidence_shrinks_what_was_measured() -> None:
    """Four samples count as much as the estimate; a cell without samples is the estimate."""
    measured = np.array([[1.0, np.nan], [0.0, 1.0]])
    guess = np.full((2, 2), 0.5), np.array([[1.0, 9.0], [1.0, 9.0]])
    seen = evidence(measured, measured, guess, np.array([[4, 0], [4, 12]]))

    np.testing.assert_allclose(seen.correct, [[0.75, 0.5], [0.25, 0.875]])
    assert seen.tokens[0, 1] == 9.0
