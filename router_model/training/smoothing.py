"""Smooths curves over the thinking budgets of a table.

P(right) and tokens change little from one budget to the next, but every tier is fitted alone. The smoother is
Whittaker's, a P-spline with one knot per tier (Eilers, "A perfect smoother", Analytical Chemistry 2003), over
ln(1 + thinking budget). It is linear in the fitted logits and log tokens, so it folds into their weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from router_model.arrays import Floats
from router_model.training.outcomes import OutcomeTable, log_tokens
from router_model.training.tier_curves import deviance, sample_weights

PENALTIES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""0 leaves each tier's own fit; the largest is close to a straight line."""
FEWEST_TIERS = 4
"""Tiers with a thought below which there is nothing to smooth."""


class Smoothing(NamedTuple):
    """How fitted values are smoothed."""

    matrix: Floats
    """Smooth logits and log tokens are the fitted ones [N, 2T] times this, [2T, 2T]."""
    penalties: Mapping[str, float]
    """What cross-validation chose for `correct` and `tokens`."""


def smoother(places: Floats, penalty: float) -> Floats:
    """Turns values y at rising places into z = y · matrix [T, T] with the least Σ(z − y)² + penalty · Σ(z″)².

    z″ are second divided differences, in units of the mean step. Constants and straight lines stay.
    """
    step = np.diff(places) / np.diff(places).mean()
    slope = np.diff(np.eye(len(places)), axis=0) / step[:, None]
    bend = np.diff(slope, axis=0) / ((step[1:] + step[:-1]) / 2)[:, None]
    smooth: Floats = np.linalg.inv(np.eye(len(places)) + penalty * bend.T @ bend)
    return smooth


def choose_smoothing(raw: Floats, table: OutcomeTable) -> Smoothing:
    """The smoothing of cross-fitted logits and log tokens [N, 2T] whose loss on the outcomes is least.

    A tier without a thought keeps its own fit, because its prompt is another one.
    """
    count = len(table.tiers)
    whole = np.eye(2 * count)
    lengths = np.array([table.lengths.get(tier, 0.0) for tier in table.tiers])
    columns = np.flatnonzero(lengths > 0)[np.argsort(lengths[lengths > 0], kind="stable")]
    places = np.log1p(lengths[columns])
    if len(columns) < FEWEST_TIERS or (np.diff(places) <= 0).any():
        return Smoothing(whole, {"correct": 0.0, "tokens": 0.0})
    best = {}
    for name, first, loss in (("correct", 0, deviance), ("tokens", count, token_loss)):
        candidates = {
            penalty: _embedded(2 * count, first + columns, smoother(places, penalty)) for penalty in PENALTIES
        }
        chosen = min(PENALTIES, key=lambda penalty: loss(raw @ candidates[penalty], table).mean())
        whole = whole @ candidates[chosen]
        best[name] = chosen
    return Smoothing(whole, best)


def _embedded(size: int, at: np.ndarray, matrix: Floats) -> Floats:
    whole = np.eye(size)
    whole[np.ix_(at, at)] = matrix
    return whole


def token_loss(raw: Floats, table: OutcomeTable) -> Floats:
    """Squared error of raw log tokens [N, 2T], mean over the tiers, [N]."""
    error = raw[:, len(table.tiers) :] - log_tokens(table)
    mean: Floats = (sample_weights(table) * error**2).mean(axis=1)
    return mean
