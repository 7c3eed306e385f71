"""Curves are smoothed over thinking budgets as far as that predicts better, and never where it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.training.outcomes import OutcomeTable
from router_model.training.smoothing import PENALTIES, choose_smoothing, smoother
from router_model.training.tier_curves import deviance

BUDGETS = (0, 8, 16, 32, 64, 128, 256)
places = st.lists(st.integers(1, 1_000), min_size=3, max_size=20, unique=True).map(
    lambda budgets: np.log1p(8 * np.sort(budgets))
)
penalties = st.floats(0, 100)


def ladder(count: int, seed: int, rough: float = 0.0) -> tuple[np.ndarray, OutcomeTable]:
    """Fitted logits and log tokens with noise of their own at each tier, and outcomes of a smooth truth.

    rough: how far the truth itself jumps between neighbouring tiers.
    """
    draw = np.random.default_rng(seed)
    lengths = np.log1p(BUDGETS)
    jumps = rough * (-1.0) ** np.arange(len(BUDGETS))
    logits = draw.normal(0, 1, (count, 1)) + 0.6 * (lengths - 3) + jumps
    correct = draw.binomial(4, 1 / (1 + np.exp(-logits))) / 4
    tokens = np.exp(1 + 0.8 * lengths + jumps / 4) * np.ones((count, 1))
    noise = draw.normal(0, 0.4, (1, 2 * len(BUDGETS)))
    table = OutcomeTable(
        name="ladder",
        ids=tuple(map(str, range(count))),
        datasets=("ladder",) * count,
        prompts=tuple(f"question {at}" for at in range(count)),
        tiers=tuple(map(str, BUDGETS)),
        correct=correct,
        tokens=tokens,
        samples=np.full(correct.shape, 4),
        digest="ladder",
        lengths={str(budget): float(budget) for budget in BUDGETS},
    )
    return np.hstack([logits, np.log(tokens)]) + noise * (rough == 0), table


@given(places, penalties, st.floats(-5, 5), st.floats(-5, 5))
def test_straight_lines_stay(at: np.ndarray, penalty: float, level: float, slope: float) -> None:
    """What is already smooth is not changed, whatever the distances between the budgets."""
    line = level + slope * at

    assert smoother(at, penalty) @ line == pytest.approx(line, abs=1e-5)


@given(places, st.floats(0.01, 100), st.integers(0, 2**32 - 1))
def test_smooth_values_are_near_and_bend_little(at: np.ndarray, penalty: float, seed: int) -> None:
    """The result trades distance for bend better than what went in, and a penalty of 0 changes nothing."""
    values = np.random.default_rng(seed).normal(0, 1, len(at))
    smooth = smoother(at, penalty) @ values

    def objective(of: np.ndarray) -> float:
        step = np.diff(at) / np.diff(at).mean()
        curve = np.diff(np.diff(of) / step) / ((step[1:] + step[:-1]) / 2)
        return float(((of - values) ** 2).sum() + penalty * (curve**2).sum())

    assert objective(smooth) <= objective(values) + 1e-9
    for other in np.random.default_rng(seed + 1).normal(0, 0.1, (5, len(at))):
        assert objective(smooth) <= objective(smooth + other) + 1e-9
    assert smoother(at, 0.0) == pytest.approx(np.eye(len(at)))


def test_noise_of_single_tiers_is_smoothed_away() -> None:
    """Where the truth is smooth, smoothing is chosen, and the curves predict the outcomes better."""
    raw, table = ladder(400, 1)
    smoothing = choose_smoothing(raw, table)

    assert smoothing.penalties["correct"] > 0
    assert smoothing.penalties["tokens"] > 0
    assert deviance(raw @ smoothing.matrix, table).mean() < deviance(raw, table).mean()


def test_a_tier_without_a_thought_keeps_its_own_fit() -> None:
    """Thinking off is another prompt, so nothing is borrowed from it and nothing lent to it."""
    raw, table = ladder(400, 2)
    smooth = raw @ choose_smoothing(raw, table).matrix

    for column in (0, len(BUDGETS)):
        assert np.array_equal(smooth[:, column], raw[:, column])


def test_a_rough_truth_is_left_as_it_is() -> None:
    """Where neighbouring budgets really differ, cross-validation chooses no smoothing."""
    raw, table = ladder(2_000, 3, rough=1.0)

    assert choose_smoothing(raw, table).penalties == {"correct": 0.0, "tokens": 0.0}


def test_without_lengths_nothing_is_smoothed() -> None:
    """Tiers without stated budgets, or with too few of them, stay as they are fitted."""
    raw, table = ladder(100, 4)
    for lengths in ({}, {"0": 0.0, "8": 8.0, "16": 16.0}, {tier: 7.0 for tier in table.tiers}):
        smoothing = choose_smoothing(raw, replace(table, lengths=lengths))

        assert np.array_equal(smoothing.matrix, np.eye(raw.shape[1]))
    assert PENALTIES[0] == 0.0
