"""Accuracy against tokens: curves from priced decisions, and points on them.

A *sweep* holds what each prompt would have cost and earned at each of a falling series of prices. Averaging
over prompts gives a curve. Neighbouring prices may be mixed at random, so a curve is linear between its
points. Budgets are relative to the fixed tiers: the `extra` budget f means the tokens of the cheapest tier
plus the share f of the way to the most expensive one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model.allocation import best_tiers, hull, steps
from router_model.arrays import Floats


class Curve(NamedTuple):
    """Mean tokens and mean accuracy, one entry per price, prices falling."""

    tokens: Floats
    correct: Floats

    def hull(self) -> Curve:
        """The corners of its upper concave hull, which is what random mixes of its points can reach."""
        corners = hull(self.correct.tolist(), self.tokens.tolist())
        return Curve(self.tokens[corners], self.correct[corners])


class Point(NamedTuple):
    """Where a curve meets a budget: tokens spent, at most the budget, and the accuracy they give."""

    tokens: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """The outcomes of decisions at falling prices."""

    rows: NDArray[np.intp]
    """The prompts' rows in the table."""
    tokens: Floats
    """[prices, prompts]"""
    correct: Floats
    """[prices, prompts]"""

    def curve(self, weights: Floats | None = None) -> Curve:
        """Means over prompts. weights: counts of a resample of all prompts of the table."""
        if weights is None:
            return Curve(self.tokens.mean(axis=1), self.correct.mean(axis=1))
        here = weights[self.rows] / weights[self.rows].sum()
        return Curve(self.tokens @ here, self.correct @ here)

    def within(self, keep: NDArray[np.bool_]) -> Sweep:
        """The part on the prompts that `keep` marks among all prompts of the table."""
        chosen = keep[self.rows]
        return Sweep(self.rows[chosen], self.tokens[:, chosen], self.correct[:, chosen])


@dataclass(frozen=True, slots=True)
class Decisions:
    """Which tier each prompt gets at falling prices."""

    rows: NDArray[np.intp]
    """The prompts' rows in the table."""
    chosen: NDArray[Any]
    """The position of the tier, [prices, prompts]; or the probability of each, [prices, prompts, tiers]."""

    def scored(self, outcomes: tuple[Floats, Floats]) -> Sweep:
        """What the decisions earn and cost. outcomes: (correct, tokens) of the same prompts, each [N, T]."""
        correct, tokens = outcomes
        if self.chosen.ndim == 3:
            return Sweep(self.rows, (self.chosen * tokens).sum(axis=2), (self.chosen * correct).sum(axis=2))
        each = np.arange(len(self.rows))
        return Sweep(self.rows, tokens[each, self.chosen], correct[each, self.chosen])

    def within(self, keep: NDArray[np.bool_]) -> Decisions:
        """The part on the prompts that `keep` marks among all prompts of the table."""
        chosen = keep[self.rows]
        return Decisions(self.rows[chosen], self.chosen[:, chosen])

    def permuted(self, keys: Floats) -> Decisions:
        """The same decisions, each made for another prompt. keys: random numbers, one per row of the table.

        Decisions on the same prompts are permuted in the same way by the same keys, whatever their order.
        """
        order = self.rows.argsort()
        moved = np.empty_like(order)
        moved[order] = order[keys[self.rows[order]].argsort()]
        return Decisions(self.rows, self.chosen[:, moved])


def prices(correct: Floats, tokens: Floats, count: int = 64) -> Floats:
    """Falling prices, infinity to 0, at which decisions by estimates [N, T] change, evenly in tokens."""
    climbs = [steps(*row) for row in zip(correct.tolist(), tokens.tolist(), strict=True)]
    falling = sorted((step for climb in climbs for step in climb), reverse=True)
    if not falling:
        return np.array([np.inf, 0.0])
    slopes, sizes = np.array(falling).T
    spent = np.cumsum(sizes)
    every = np.arange(len(slopes))
    chosen = every if len(every) <= count else np.searchsorted(spent, np.linspace(0, spent[-1], count)[1:-1])
    just_below = np.unique(slopes[chosen])[::-1] * (1 - 1e-9)  # at the exact price, rounding would decide
    return np.concatenate([[np.inf], just_below, [0.0]])


def decide(
    estimates: tuple[Floats, Floats],
    outcomes: tuple[Floats, Floats],
    rows: NDArray[np.intp],
    at: Floats | None = None,
) -> Decisions:
    """Decide by estimates (correct, tokens), [N, T], of prompts with outcomes (correct, tokens), [N, T].

    Of the outcomes only the mean tokens are used: row 0 is the cheapest tier for all prompts. at: the prices;
    by default those where decisions change.
    """
    picks = [np.full(len(rows), outcomes[1].mean(axis=0).argmin())]
    picks += [best_tiers(*estimates, price) for price in (prices(*estimates) if at is None else at)]
    return Decisions(rows, np.stack(picks))


def sweep(
    estimates: tuple[Floats, Floats],
    outcomes: tuple[Floats, Floats],
    rows: NDArray[np.intp],
    at: Floats | None = None,
) -> Sweep:
    """Decide by estimates as in `decide` and score by outcomes (correct, tokens), each [N, T]."""
    return decide(estimates, outcomes, rows, at).scored(outcomes)


def fixed(correct: Floats, tokens: Floats, rows: NDArray[np.intp]) -> Sweep:
    """The fixed tiers as a sweep: one row per tier, cheapest first."""
    order = tokens.mean(axis=0).argsort(kind="stable")
    return Sweep(rows, tokens.T[order], correct.T[order])


def at_shares(decisions: Decisions, curve: Curve, tiers: Curve, count: int = 41) -> Decisions:
    """The decisions at `count` even shares of the extra budget of the tiers, mixed between two prices.

    curve: what the decisions reach. Parts of a table that were each decided by another method are then
    compared at the same share of their own budgets. One price for all would compare the levels of the
    methods' estimates.
    """
    one_hot = np.eye(len(tiers.tokens), dtype=np.float32)
    chosen = one_hot[decisions.chosen] if decisions.chosen.ndim == 2 else decisions.chosen
    rows = []
    for share in np.linspace(0, 1, count):
        budget = budget_of(tiers, share)
        over = np.flatnonzero(curve.tokens > budget * (1 + 1e-12))
        right = int(over[0]) if over.size else len(curve.tokens) - 1
        left = max(right - 1, 0) if over.size else right
        rise = curve.tokens[right] - curve.tokens[left]
        part = min(max((budget - curve.tokens[left]) / rise, 0.0), 1.0) if rise > 0 else 0.0
        rows.append((1 - part) * chosen[left] + part * chosen[right])
    return Decisions(decisions.rows, np.stack(rows))


def at_budget(curve: Curve, budget: float) -> Point:
    """The point between two prices where the curve first exceeds the budget; its end if it never does."""
    over = np.flatnonzero(curve.tokens > budget * (1 + 1e-12))
    if not over.size:
        return Point(float(curve.tokens[-1]), float(curve.correct[-1]))
    right = int(over[0])
    if right == 0:
        return Point(float(curve.tokens[0]), float(curve.correct[0]))
    left = right - 1
    share = (budget - curve.tokens[left]) / (curve.tokens[right] - curve.tokens[left])
    return Point(budget, float(curve.correct[left] + share * (curve.correct[right] - curve.correct[left])))


def mix_at(tiers: Curve, budget: float) -> float:
    """Accuracy of the best random mix of fixed tiers within the budget, which is their hull."""
    return float(np.interp(budget, *tiers.hull()))


def tokens_for(curve: Curve, accuracy: float) -> float:
    """Fewest tokens at which the curve reaches the accuracy; NaN if it never does."""
    reached = np.flatnonzero(curve.correct >= accuracy - 1e-12)
    if not reached.size:
        return float("nan")
    right = int(reached[0])
    if right == 0:
        return float(curve.tokens[0])
    rise = curve.correct[right] - curve.correct[right - 1]
    share = (accuracy - curve.correct[right - 1]) / rise
    return float(curve.tokens[right - 1] + share * (curve.tokens[right] - curve.tokens[right - 1]))


def area(curve: Curve, low: float, high: float) -> float:
    """Mean accuracy of the curve's concave hull over budgets from low to high (AIQ, RouterBench §4)."""
    if high <= low:
        return float("nan")
    x, y = curve.hull()
    budgets = np.concatenate([[low], x[(x > low) & (x < high)], [high]])
    return float(np.trapezoid(np.interp(budgets, x, y), budgets) / (high - low))


def ends(tiers: Curve) -> tuple[float, float]:
    """Mean tokens of the cheapest and of the most expensive tier."""
    return float(tiers.tokens.min()), float(tiers.tokens.max())


def budget_of(tiers: Curve, extra: float) -> float:
    """Tokens at a share of the extra budget."""
    low, high = ends(tiers)
    return low + extra * (high - low)
