"""Every figure that is reported of a method: from its curve, with intervals, and of its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from router_model.arrays import Floats
from router_model.evaluation.cost_quality import Curve, Sweep, area, at_budget, ends, tokens_for

BUDGETS = {"tight": 0.1, "lean": 0.25, "middle": 0.5, "ample": 0.75, "loose": 0.9}
"""Names of the budgets that are reported: shares of the way from the cheapest to the most expensive tier."""

_FLAT = 0.01  # shares of a gap between weakest and strongest tier below this have no meaning


class Ground(NamedTuple):
    """What the fixed tiers reach without a router, which every method is compared with."""

    tiers: Curve
    corners: Curve
    """Of their hull."""
    ends: tuple[float, float]
    """Mean tokens of the cheapest and of the most expensive tier."""
    budgets: dict[str, tuple[float, float]]
    """Tokens and the mix's accuracy at each of `BUDGETS`."""
    area: float

    @classmethod
    def of(cls, tiers: Curve) -> Ground:
        """Of the curve of fixed tiers."""
        low, high = ends(tiers)
        corners = tiers.hull()
        budgets = {name: low + extra * (high - low) for name, extra in BUDGETS.items()}
        mixed = {name: (budget, float(np.interp(budget, *corners))) for name, budget in budgets.items()}
        return cls(tiers, corners, (low, high), mixed, area(corners, low, high))


def gains(curve: Curve, ground: Ground) -> dict[str, float]:
    """Accuracy above the best mix of the fixed tiers at equal tokens, as shares of 1.

    gain_*: at a named budget. aiq_gain: mean over the budgets, of the hulls of both (RouterBench §4).
    """
    found = {
        f"gain_{name}": at_budget(curve, budget).accuracy - mixed
        for name, (budget, mixed) in ground.budgets.items()
    }
    return found | {"aiq_gain": area(curve, *ground.ends) - ground.area}


def measures(curve: Curve, ground: Ground, oracle: Curve | None = None) -> dict[str, float]:
    """All figures that are reported of one curve, as shares of 1; NaN where a figure has no meaning.

    Beside `gains`: saved_*: share of tokens saved at the mix's accuracy at a named budget. saved_best: tokens
    saved at the accuracy of the best single tier. gap_*: share of the gap between mix and oracle that is
    closed. aiq: RouterBench. apgr: recovered share of the gap between weakest and strongest tier, mean over
    budgets (RouteLLM §4, with tokens in place of calls).
    """
    figures = gains(curve, ground)
    for name, (budget, mixed) in ground.budgets.items():
        figures[f"tokens_{name}"], figures[f"accuracy_{name}"] = at_budget(curve, budget)
        figures[f"saved_{name}"] = 1 - tokens_for(curve, mixed) / budget
        if oracle is not None:
            gap = at_budget(oracle, budget).accuracy - mixed
            figures[f"gap_{name}"] = figures[f"gain_{name}"] / gap if gap > _FLAT else np.nan
    tiers = ground.tiers
    top = int(tiers.correct.argmax())
    figures["saved_best"] = 1 - tokens_for(curve, float(tiers.correct[top])) / float(tiers.tokens[top])
    figures["aiq"] = figures["aiq_gain"] + ground.area
    figures["apgr"] = _recovered(curve, tiers)
    return figures


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

    Every method has one sweep per seed. A draw resamples prompts and seeds with replacement, the same for all
    methods, so that differences between methods are paired (Efron and Tibshirani, ch. 8 and 16).
    """
    random = np.random.default_rng(seed)
    seeds = len(tiers)
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in sweeps}
    for draw in range(1 + draws):
        weights = random.multinomial(prompts, np.full(prompts, 1 / prompts)).astype(float) if draw else None
        runs = np.bincount(random.integers(0, seeds, seeds), minlength=seeds) if draw else np.ones(seeds)
        used = np.flatnonzero(runs)
        ground = {run: Ground.of(tiers[run].curve(weights)) for run in used}
        best = {run: oracle[run].curve(weights) if oracle else None for run in used}
        for name, of_method in sweeps.items():
            rows = [measures(of_method[run].curve(weights), ground[run], best[run]) for run in used]
            for key in rows[0]:
                value = np.average([row[key] for row in rows], weights=runs[used])
                figures[name].setdefault(key, []).append(float(value))
    return {name: {key: np.array(values) for key, values in rows.items()} for name, rows in figures.items()}


def interval(values: Floats, level: float = 0.95) -> tuple[float, float, float]:
    """Estimate (entry 0) and percentile bounds of the draws; NaN if over a tenth of them are NaN."""
    estimate, draws = float(values[0]), values[1:]
    if np.isnan(draws).mean() > 0.1 or not draws.size:
        return estimate, float("nan"), float("nan")
    low, high = np.nanpercentile(draws, [50 * (1 - level), 50 * (1 + level)])
    return estimate, float(low), float(high)


def calibration_error(predicted: Floats, outcome: Floats, bins: int = 10) -> float:
    """Expected calibration error: mean |mean prediction − mean outcome| over bins of equal size.

    Equal predictions share a bin, and bins are weighted by their size.
    """
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, predicted, side="right")
    gaps = np.bincount(place, predicted - outcome)
    return float(np.abs(gaps).sum() / len(predicted))


def chance(values: Floats) -> float:
    """One-sided p-value that a figure is above zero, from its resamples (entry 0 is the figure itself)."""
    draws = values[1:]
    return float((1 + (draws <= 0).sum() + np.isnan(draws).sum()) / (1 + len(draws)))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for testing all of them at once (Holm, 1979): each is significant below the level.

    The k-th smallest of m is multiplied by m − k + 1, and none is smaller than the one before it.
    """
    order = np.argsort(values, kind="stable")
    steps = np.asarray(values, float)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()
