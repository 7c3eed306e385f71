"""Inference-budget-constrained allocation: which prompts a budget of tokens should be spent on.

Yu et al., "Think Smarter not Harder: Adaptive Reasoning with Inference Aware Optimization" (ICML 2025)
limit the *share* of long answers in a batch by an integer programme. Here the limit is on *tokens*, which
makes the allocation a multiple-choice knapsack whose linear relaxation is solved exactly by concave hulls
(Sinha and Zoltners, 1979), with at most one prompt left between two tiers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNIT = 1000
"""Prices are in correctness for this many tokens."""


class Allocation(NamedTuple):
    """probabilities: of each tier, [N, T]; every row sums to 1, at most one row is not 0/1.
    price: correctness that 1,000 more tokens would buy; 0 when the budget is slack, infinite when it is less
    than the cheapest tiers cost."""

    probabilities: Floats
    price: float


class _Steps(NamedTuple):
    """Moves along the rows' hulls, most valuable first: which row, from and to which tier, at what slope."""

    row: NDArray[np.int64]
    below: NDArray[np.int64]
    above: NDArray[np.int64]
    extra: Floats
    slope: Floats


def _cheapest(correct: Floats, tokens: Floats) -> NDArray[np.int64]:
    """The tier of least tokens of each row; of several the one that is right most often."""
    ties = tokens <= tokens.min(axis=1, keepdims=True)
    at: NDArray[np.int64] = np.where(ties, correct, -np.inf).argmax(axis=1)
    return at


def _climb(correct: Floats, tokens: Floats) -> _Steps:
    """Walk all rows' upper concave hulls at once, always along the steepest chord."""
    rows, at = np.arange(len(correct)), _cheapest(correct, tokens)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Floats, Floats]] = []
    ceiling = np.full(len(correct), np.inf)
    while len(rows):
        extra = tokens[rows] - tokens[rows, at][:, None]
        gain = correct[rows] - correct[rows, at][:, None]
        slope = np.divide(gain, extra, out=np.full(gain.shape, -np.inf), where=(extra > 0) & (gain > 0))
        steepest = slope.max(axis=1, keepdims=True)
        to = np.where(slope >= steepest, extra, -np.inf).argmax(axis=1)
        alive = steepest[:, 0] > 0
        rows, at, to, extra, steepest = rows[alive], at[alive], to[alive], extra[alive], steepest[alive, 0]
        ceiling[rows] = np.minimum(ceiling[rows], steepest)  # rounding must not put a later step first
        found.append((rows, at, to, extra[np.arange(len(rows)), to], ceiling[rows]))
        at = to
    row, below, above, extra, slope = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(-slope, kind="stable")
    return _Steps(row[order], below[order], above[order], extra[order], slope[order])


def allocate(correct: Floats, tokens: Floats, budget: float) -> Allocation:
    """Tiers that maximise mean correctness with at most `budget` tokens a prompt on average.

    correct, tokens: [N, T], N ≥ 1, finite. Exact: the optimum of the linear programme over [N, T].
    """
    steps = _climb(correct, tokens)
    rows = np.arange(len(correct))
    probabilities = np.zeros(correct.shape)
    tier = _cheapest(correct, tokens)
    left = budget * len(correct) - tokens[rows, tier].sum()
    spent = np.cumsum(steps.extra)
    whole = int(np.searchsorted(spent, max(left, 0.0), side="right"))
    tier[steps.row[:whole]] = steps.above[:whole]  # of one row's steps the last comes last
    probabilities[rows, tier] = 1.0
    if whole == len(spent) and left >= 0:
        return Allocation(probabilities, 0.0)
    if left < 0:
        return Allocation(probabilities, np.inf)
    part = (left - (spent[whole - 1] if whole else 0.0)) / steps.extra[whole]
    probabilities[steps.row[whole], steps.below[whole]] -= part
    probabilities[steps.row[whole], steps.above[whole]] += part
    return Allocation(probabilities, float(steps.slope[whole]) * UNIT)


def demand(correct: Floats, tokens: Floats) -> tuple[Floats, Floats]:
    """What a budget's last tokens are worth: mean tokens a prompt, rising, and the price there, falling.

    The steps of the dual of `allocate`: the price is the least that keeps spending at or below the budget.
    """
    steps = _climb(correct, tokens)
    base = float(tokens[np.arange(len(correct)), _cheapest(correct, tokens)].mean())
    return base + np.cumsum(steps.extra) / len(correct), steps.slope * UNIT
