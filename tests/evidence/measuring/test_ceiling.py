"""What a router could gain at most: the truth lies between the two ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.measuring.ceiling import Ceiling, CurvePoint, ceiling_of, cheapest, height, mixtures
from router_model.arrays import Floats

TOKENS = np.array([100.0, 200.0, 400.0])


def measured(chance: Floats, samples: int, seed: int) -> Ceiling:
    """The ceiling of prompts with these chances to be right, as so many samples show it."""
    correct = np.random.default_rng(seed).binomial(1, np.repeat(chance[:, :, None], samples, axis=2))
    return ceiling_of(correct.astype(float), np.broadcast_to(TOKENS[:, None], correct.shape).astype(float))


def chances(kind: str) -> Floats:
    rng = np.random.default_rng(7)
    if kind == "nothing to gain":
        return np.broadcast_to(np.array([0.5, 0.6, 0.7]), (300, 3)).astype(float)
    easy = rng.random(300) < 0.4
    return np.where(easy[:, None], [0.9, 0.92, 0.93], [0.1, 0.4, 0.8]).astype(float)


@pytest.mark.parametrize("kind", ["nothing to gain", "easy and hard"])
@pytest.mark.parametrize("samples", [2, 4])
def test_truth_lies_between(kind: str, samples: int) -> None:
    """The ceiling with luck is above what is truly possible, and the one without is below, on average."""
    chance = chances(kind)
    truth = ceiling_of(
        chance[:, :, None], np.broadcast_to(TOKENS[:, None], (300, 3, 1)).astype(float)
    ).highest
    runs = [measured(chance, samples, seed) for seed in range(12)]

    for tokens in (150.0, 200.0, 300.0):
        high, low = (
            np.mean([height(curve, tokens) for curve in curves])
            for curves in ([run.highest for run in runs], [run.lowest for run in runs])
        )
        assert low - 0.01 <= height(truth, tokens) <= high + 0.01


def test_nothing_to_gain() -> None:
    """Where all prompts are alike, luck looks like a gain, and the corrected ceiling shows almost none."""
    run = measured(chances("nothing to gain"), 4, 0)

    assert height(run.highest, 200) - height(run.fixed, 200) > 0.15
    assert height(run.lowest, 200) - height(run.fixed, 200) < 0.04


def test_one_sample() -> None:
    """With one sample there is no corrected ceiling."""
    assert measured(chances("easy and hard"), 1, 0).lowest == ()


@given(st.integers(0, 1000), st.integers(1, 3))
def test_never_below_the_best_rung(seed: int, samples: int) -> None:
    """A perfect choice is at least as good as fixed rungs, at any tokens."""
    run = measured(np.random.default_rng(seed).random((20, 3)), samples, seed)

    for tokens in (100.0, 170.0, 400.0):
        assert height(run.highest, tokens) >= height(run.fixed, tokens) - 0.02
        assert not run.lowest or height(run.lowest, tokens) >= height(run.fixed, tokens) - 1e-9


def test_curves() -> None:
    """Mixtures of points, and the tokens at which they reach a share."""
    curve = mixtures([CurvePoint(100, 0.5), CurvePoint(200, 0.5), CurvePoint(300, 0.9), CurvePoint(400, 0.8)])

    assert curve == (CurvePoint(100, 0.5), CurvePoint(300, 0.9))
    assert height(curve, 200) == pytest.approx(0.7)
    assert height(curve, 1000) == 0.9
    assert cheapest(curve, 0.7) == pytest.approx(200)
    assert cheapest(curve, 0.95) is None
    assert cheapest((), 0.5) is None
