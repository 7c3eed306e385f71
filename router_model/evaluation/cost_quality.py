"""Accuracy against tokens: curves from priced decisions, and every figure that is read off them.

A *sweep* holds what each prompt would have cost and earned at each of a falling series of prices;
averaging over prompts gives a curve, and neighbouring prices may be mixed at random, so a curve is linear
between its points. Measures are relative to the fixed tiers: `extra` budget f means the tokens of the
cheapest tier plus the share f of the way to the dearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model.allocation import best_tiers, hull, steps
from router_model.arrays import Floats

BUDGETS = {"tight": 0.1, "lean": 0.25, "middle": 0.5, "ample": 0.75, "loose": 0.9}
_FLAT = 0.01  # below this gap between weakest and strongest tier, shares of the gap mean nothing


class Curve(NamedTuple):
    """Mean tokens and mean accuracy, one entry a price, prices falling."""

    tokens: Floats
    correct: Floats

    def hull(self) -> Curve:
        """The corners of its upper concave hull: what random mixing of its points can reach."""
        corners = hull(self.correct.tolist(), self.tokens.tolist())
        return Curve(self.tokens[corners], self.correct[corners])


class Point(NamedTuple):
    """Where a curve meets a budget: tokens spent (at most the budget) and the accuracy got for them."""

    tokens: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """Tokens and correctness [prices, prompts] that decisions at falling prices come to; `rows` name the
    prompts.
    """

    rows: NDArray[np.intp]
    tokens: Floats
    correct: Floats

    def curve(self, weights: Floats | None = None) -> Curve:
        """Means over prompts, `weights` [all prompts of the table] as counts of a resample."""
        if weights is None:
            return Curve(self.tokens.mean(axis=1), self.correct.mean(axis=1))
        here = weights[self.rows] / weights[self.rows].sum()
        return Curve(self.tokens @ here, self.correct @ here)

    def within(self, keep: NDArray[np.bool_]) -> Sweep:
        """The prompts that `keep` [all prompts of the table] marks."""
        chosen = keep[self.rows]
        return Sweep(self.rows[chosen], self.tokens[:, chosen], self.correct[:, chosen])


def prices(correct: Floats, tokens: Floats, count: int = 64) -> Floats:
    """Falling prices, infinity to 0, at which the decisions of estimates [N, T] change in about equal
    steps of tokens.

    The steps are the edges of each prompt's hull (the greedy solution of the multiple-choice knapsack).
    """
    climbs = [steps(*row) for row in zip(correct.tolist(), tokens.tolist(), strict=True)]
    falling = sorted((step for climb in climbs for step in climb), reverse=True)
    if not falling:
        return np.array([np.inf, 0.0])
    slopes, sizes = np.array(falling).T
    spent = np.cumsum(sizes)
    every = np.arange(len(slopes))
    at = every if len(every) <= count else np.searchsorted(spent, np.linspace(0, spent[-1], count)[1:-1])
    just_below = np.unique(slopes[at])[::-1] * (
        1 - 1e-9
    )  # at the very price of a step, rounding would decide
    return np.concatenate([[np.inf], just_below, [0.0]])


def sweep(
    estimates: tuple[Floats, Floats],
    outcomes: tuple[Floats, Floats],
    rows: NDArray[np.intp],
    at: Floats | None = None,
) -> Sweep:
    """Decide by estimates (correct, tokens), score by outcomes (correct, tokens), each [N, T]; row 0 is
    the cheapest tier for all.
    """
    correct, tokens = outcomes
    each = np.arange(len(rows))
    picks = [np.full(len(rows), tokens.mean(axis=0).argmin())]
    picks += [best_tiers(*estimates, price) for price in (prices(*estimates) if at is None else at)]
    return Sweep(
        rows,
        np.stack([tokens[each, pick] for pick in picks]),
        np.stack([correct[each, pick] for pick in picks]),
    )


def fixed(correct: Floats, tokens: Floats, rows: NDArray[np.intp]) -> Sweep:
    """The fixed tiers as a sweep: one row a tier, cheapest first."""
    order = tokens.mean(axis=0).argsort(kind="stable")
    return Sweep(rows, tokens.T[order], correct.T[order])


def at_budget(curve: Curve, budget: float) -> Point:
    """The point where the curve first rises above the budget, between two prices; its end if it never
    does.
    """
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
    """Accuracy of the best random mix of fixed tiers within the budget: their convex hull."""
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
    """Mean accuracy of the curve's non-decreasing concave hull over budgets from low to high (AIQ,
    RouterBench §4).
    """
    if high <= low:
        return float("nan")
    x, y = curve.hull()
    at = np.unique(np.concatenate([[low, high], x[(x > low) & (x < high)]]))
    return float(np.trapezoid(np.interp(at, x, y), at) / (high - low))


def ends(tiers: Curve) -> tuple[float, float]:
    """Mean tokens of the cheapest and of the dearest tier."""
    return float(tiers.tokens.min()), float(tiers.tokens.max())


def budget_of(tiers: Curve, extra: float) -> float:
    """Tokens at a share of the extra budget."""
    low, high = ends(tiers)
    return low + extra * (high - low)


def measures(curve: Curve, tiers: Curve, oracle: Curve | None = None) -> dict[str, float]:
    """Everything reported of one curve; accuracies and gains as shares of 1. NaN where a figure means
    nothing.

    gain_*: accuracy above the mix at a named budget. saved_*: share of tokens saved at the mix's accuracy
    there. saved_best: the same against always using the best single tier. aiq, aiq_gain: RouterBench;
    apgr: mean over budgets of the recovered share of the weakest-to-strongest gap (RouteLLM §4, tokens in
    place of calls).
    gap_*: share of the gap between mix and oracle that is closed.
    """
    low, high = ends(tiers)
    found: dict[str, float] = {}
    corners = tiers.hull()
    for name, extra in BUDGETS.items():
        budget = low + extra * (high - low)
        reached, mixed = at_budget(curve, budget), float(np.interp(budget, *corners))
        found[f"tokens_{name}"], found[f"accuracy_{name}"] = reached
        found[f"gain_{name}"] = reached.accuracy - mixed
        found[f"saved_{name}"] = 1 - tokens_for(curve, mixed) / budget
        if oracle is not None:
            best = at_budget(oracle, budget).accuracy
            found[f"gap_{name}"] = (
                (reached.accuracy - mixed) / (best - mixed) if best - mixed > _FLAT else np.nan
            )
    top = int(tiers.correct.argmax())
    found["saved_best"] = 1 - tokens_for(curve, float(tiers.correct[top])) / float(tiers.tokens[top])
    found["aiq"] = area(curve, low, high)
    found["aiq_gain"] = found["aiq"] - area(tiers, low, high)
    found["apgr"] = _recovered(curve, tiers)
    return found


def _recovered(curve: Curve, tiers: Curve) -> float:
    weak, strong = float(tiers.correct[tiers.tokens.argmin()]), float(tiers.correct[tiers.tokens.argmax()])
    if strong - weak <= _FLAT:
        return float("nan")
    spent = np.maximum.accumulate(curve.tokens)
    reached = np.interp(np.linspace(*ends(tiers), 41), spent, curve.correct)
    return (float(reached.mean()) - weak) / (strong - weak)


def bootstrap(  # noqa: PLR0917
    sweeps: Mapping[str, Sequence[Sweep]],
    tiers: Sequence[Sweep],
    oracle: Sequence[Sweep] | None,
    prompts: int,
    draws: int,
    seed: int,
) -> dict[str, dict[str, Floats]]:
    """Measures of resampled experiments, [1 + draws] each, entry 0 the experiment itself.

    Every method has one sweep a seed. A draw resamples prompts and seeds with replacement, the same ones
    for all methods, so differences between methods are paired (Efron and Tibshirani, ch. 8 and 16).
    """
    random = np.random.default_rng(seed)
    seeds = len(tiers)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in sweeps}
    for draw in range(1 + draws):
        weights = random.multinomial(prompts, np.full(prompts, 1 / prompts)).astype(float) if draw else None
        runs = np.bincount(random.integers(0, seeds, seeds), minlength=seeds) if draw else np.ones(seeds)
        used = np.flatnonzero(runs)
        ground = {run: tiers[run].curve(weights) for run in used}
        best = {run: oracle[run].curve(weights) if oracle else None for run in used}
        for name, of_method in sweeps.items():
            rows = [measures(of_method[run].curve(weights), ground[run], best[run]) for run in used]
            for key in rows[0]:
                value = np.average([row[key] for row in rows], weights=runs[used])
                found[name].setdefault(key, []).append(float(value))
    return {name: {key: np.array(values) for key, values in rows.items()} for name, rows in found.items()}


def interval(values: Floats, level: float = 0.95) -> tuple[float, float, float]:
    """Estimate (entry 0) and percentile bounds of the rest; bounds are NaN when over a tenth of the draws
    are NaN.
    """
    estimate, draws = float(values[0]), values[1:]
    if np.isnan(draws).mean() > 0.1 or not draws.size:
        return estimate, float("nan"), float("nan")
    low, high = np.nanpercentile(draws, [50 * (1 - level), 50 * (1 + level)])
    return estimate, float(low), float(high)


def calibration_error(predicted: Floats, outcome: Floats, bins: int = 10) -> float:
    """Expected calibration error: mean |mean prediction − mean outcome| over bins of equal size, weighted
    by size.

    Equal predictions share a bin.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, predicted, side="right")
    gaps = np.bincount(place, predicted - outcome)
    return float(np.abs(gaps).sum() / len(predicted))
