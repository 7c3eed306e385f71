"""Reported figures and their intervals, on cases with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import cost_quality, metrics
from router_model.evaluation.cost_quality import Curve
from router_model.evaluation.metrics import Ground

TWO = Curve(np.array([100.0, 300.0]), np.array([0.6, 0.8]))


def outcomes(random: np.random.Generator, prompts: int = 12, tiers: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong, and tokens that mostly rise with the tier."""
    correct = (random.random((prompts, tiers)) < np.linspace(0.3, 0.8, tiers)).astype(float)
    return correct, np.cumsum(random.integers(1, 50, (prompts, tiers)), axis=1).astype(float)


def test_mix_against_itself() -> None:
    """The straight mix of two tiers gains nothing, saves nothing and recovers half the gap on average."""
    found = metrics.measures(TWO, Ground.of(TWO), Curve(np.array([100.0, 150.0]), np.array([0.6, 0.9])))

    assert found["apgr"] == pytest.approx(0.5)
    for name in metrics.BUDGETS:
        assert found[f"gain_{name}"] == pytest.approx(0)
        assert found[f"saved_{name}"] == pytest.approx(0)
        assert found[f"gap_{name}"] == pytest.approx(0)
    assert found["aiq_gain"] == pytest.approx(0)


def test_the_oracle_against_itself() -> None:
    """The oracle closes the whole gap to the oracle."""
    best = Curve(np.array([100.0, 150.0]), np.array([0.6, 0.9]))

    assert metrics.measures(best, Ground.of(TWO), best)["gap_middle"] == pytest.approx(1)


def test_equal_tiers_have_no_gap_to_recover() -> None:
    """The share of a gap is NaN where there is no gap."""
    flat = Curve(np.array([1.0, 9.0]), np.array([0.5, 0.505]))

    assert math.isnan(metrics.measures(flat, Ground.of(flat))["apgr"])


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
    """Zero for predictions that come true in every bin; the distance for predictions that miss by it."""
    truth = np.repeat([0.0, 1.0], 50)

    assert metrics.calibration_error(truth, truth) == 0
    assert metrics.calibration_error(np.full(100, 0.7), truth) == pytest.approx(0.2)


def test_holm() -> None:
    """By hand: .005 × 4, .01 × 3, .03 × 2, and .04 × 1 is raised to the one before it."""
    assert metrics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert metrics.holm([0.6, 0.9]) == [1.0, 1.0]
    assert metrics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order(values: list[float]) -> None:
    """Corrected values are no smaller than before, at most Bonferroni's, and in the same order."""
    found = metrics.holm(values)

    assert all(
        value <= corrected <= min(1, len(values) * value) + 1e-12
        for value, corrected in zip(values, found, strict=True)
    )
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()


def test_chance_of_resamples() -> None:
    """One of four resamples is not above zero; the figure itself is not a resample."""
    assert metrics.chance(np.array([-9.0, 1.0, 2.0, -1.0, 3.0])) == pytest.approx(2 / 5)
