"""IBPO, the second stage of training: curves that decide well, starting from curves that predict well.

Yu et al., "Think Smarter not Harder" (ICML 2025), improve a supervised policy under a limit on the batch.
Here the limit is on tokens, and its Lagrangian is maximised: E[Σ π (R − λ C)] over dual prices λ of the exact
allocation. The outcome loss and a penalty on the distance from the first stage hold the curves where they are
good predictors. The trunk stays; each table changes only what its curves read of its own latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model.allocation import UNIT, best_tiers, demand, hull, value
from router_model.arrays import Floats, Ints
from router_model.head import Head
from router_model.head_parts import Curves
from router_model.training import tier_curves
from router_model.training.adam import Adam
from router_model.training.objectives import OBJECTIVES, Objective, Shrunk, Worths, evidence
from router_model.training.outcomes import FEWEST, FOLDS, OutcomeTable, log_tokens

DEFAULT = "policy gradient"
"""The objective that `train` and `calibrate` use."""

MARGIN = 0.002
"""The second stage may lose this much value on a table's held-out folds and still be kept."""

SKIPPED = {"objective": None, "kept": False}
"""The manifest's entry for a table with a simple fit or of fewer prompts than `choice.SMALL`."""

_STEPS, _RATE = 200, 0.01
_HOME = 0.02  # weight of the squared distance from the first stage
_TOKENS_WEIGHT = 0.5  # of the Huber loss of log tokens beside the binomial loss, as in stage 1
_BUDGETS = 32  # evenly spaced budgets at which a value is taken


@dataclass(frozen=True)
class FirstStage:
    """What outcome pre-training leaves behind for one table of N prompts and T tiers."""

    table: OutcomeTable
    latents: Floats
    """Cross-fitted, [N, R]."""
    rows: slice
    """Which rows of the curves' weights read these latents."""
    fold: Ints
    """[N]"""
    whole: Floats
    """Corrected logits and log tokens by the curves, [N, 2T]."""
    without: Floats
    """The same for all prompts by curves that were fitted without a fold, by fold, [FOLDS, N, 2T]."""
    curves: Curves
    smoothing: Floats
    """Projects changes of raw predictions on curves that are smooth over the thinking budgets, [2T, 2T]."""

    @property
    def crossed(self) -> Floats:
        """The same for each prompt by the curves that were fitted without its fold, [N, 2T]."""
        own: Floats = self.without[self.fold, np.arange(len(self.fold))]
        return own

    def served(self, raw: Floats) -> tuple[Floats, Floats]:
        """P(right) and E[tokens] as the gateway would read them off raw predictions [N, 2T]."""
        size = raw.shape[1]
        same = replace(self.curves, weights=np.eye(size, dtype=np.float32), bias=np.zeros(size, np.float32))
        return same.outcomes(raw.astype(np.float32))


def linear_without(latents: Floats, table: OutcomeTable, fold: Ints) -> Floats:
    """Predictions of linear curves for all prompts, fitted without each fold, [FOLDS, N, 2T]."""
    predictions = np.zeros((FOLDS, len(table), 2 * len(table.tiers)))
    for part in np.unique(fold):
        weights = tier_curves.regress(latents[fold != part], table.take(fold != part))
        predictions[part] = latents @ weights[:-1] + weights[-1]
    return predictions


def improve_head(head: Head, stages: Mapping[str, FirstStage], seed: int, objective: str = DEFAULT) -> Head:
    """The head after the second stage of each set of curves; its manifest's metrics gain `second_stage`."""
    sets = dict(head.sets)
    metrics = {name: entry | {"second_stage": SKIPPED} for name, entry in head.manifest["metrics"].items()}
    for name, first in stages.items():
        sets[name], entry = improve(first, seed, objective)
        metrics[name] = metrics[name] | {"second_stage": entry}
    return replace(head, sets=sets, manifest={**head.manifest, "metrics": metrics})


def improve(first: FirstStage, seed: int, objective: str = DEFAULT) -> tuple[Curves, dict[str, Any]]:
    """The curves after the second stage, and its entry for the manifest.

    Each fold is predicted by both stages fitted without it. The second stage is `kept` unless it is worse
    there by more than MARGIN and by more than one standard error, or fewer than 20 prompts were measured at
    all tiers. Otherwise the curves of the first stage are returned. Tokens are corrected again, so that their
    estimates stay expectations.
    """
    chosen, table, count = OBJECTIVES[objective], first.table, len(first.table.tiers)
    before = first.crossed
    seen = evidence(table.correct, table.tokens, first.served(before), table.samples)
    after = before.copy()
    for part in np.unique(first.fold):
        here = first.fold == part
        change = _fitted(first, first.without[part], seen, ~here, chosen, seed)
        after[here] += first.latents[here] @ change[:-1] + change[-1]
    again = tier_curves.correct_by(after, table)
    after[:, count:] += again.longer
    gain = gains_over(first.served(before), first.served(after), table)
    error = float(gain.std() / np.sqrt(max(len(gain), 1)))
    mean = float(gain.sum() / max(len(gain), 1))
    kept = len(gain) >= FEWEST and mean >= -max(MARGIN, error)
    entry = {"objective": objective, "kept": kept, "gain": round(mean, 5), "gain_error": round(error, 5)}
    if not kept:
        return first.curves, entry
    change = _fitted(first, first.whole, seen, np.ones(len(table), bool), chosen, seed)
    change[-1, count:] += again.longer
    weights = first.curves.weights.copy()
    weights[first.rows] += change[:-1].astype(np.float32)
    bias = first.curves.bias + change[-1].astype(np.float32)
    return replace(first.curves, weights=weights, bias=bias, spread=again.spread.astype(np.float32)), entry


def gains_over(before: tuple[Floats, Floats], after: tuple[Floats, Floats], table: OutcomeTable) -> Floats:
    """What decisions by other estimates gain, mean over evenly spaced budgets.

    There is one figure for each prompt that was measured at all tiers. Extra tokens are charged at what they
    buy on the hull of the decisions before. So the mean over prompts is, to first order, the difference of
    mean accuracy over all budgets (AIQ), as a share of 1.
    """
    known = (table.samples > 0).all(axis=1)
    if not known.any():
        return np.zeros(0)
    correct, tokens = table.correct[known], table.tokens[known]
    reached = [_decided((found[0][known], found[1][known]), correct, tokens) for found in (before, after)]
    (right, spent), (other_right, other_spent) = reached
    rate = _exchange(spent.mean(axis=1), right.mean(axis=1))[:, None]
    gained: Floats = (other_right - right - rate * (other_spent - spent)).mean(axis=0)
    return gained


def _decided(estimates: tuple[Floats, Floats], correct: Floats, tokens: Floats) -> tuple[Floats, Floats]:
    """Outcomes, [budgets, N] each, at prices by which the estimates spend evenly spaced budgets."""
    each = np.arange(len(correct))
    budgets, prices = demand(*estimates)
    asked = np.linspace(0, 1, _BUDGETS)
    if len(budgets):
        asked = budgets[0] + asked * (budgets[-1] - budgets[0])
        prices = prices[np.searchsorted(budgets, asked).clip(max=len(prices) - 1)] * (1 - 1e-9)
    else:
        prices = np.zeros(_BUDGETS)
    picks = [best_tiers(*estimates, price) for price in prices]
    return np.stack([correct[each, pick] for pick in picks]), np.stack([tokens[each, pick] for pick in picks])


def _exchange(spent: Floats, right: Floats) -> Floats:
    """Accuracy that a token buys at each point, on the upper hull of all points."""
    corners = hull(right.tolist(), spent.tolist())
    if len(corners) < 2:
        return np.zeros(len(spent))
    slopes = np.append(np.diff(right[corners]) / np.diff(spent[corners]), 0.0)  # beyond the last corner
    place = np.searchsorted(spent[corners], spent, side="right") - 1
    rates: Floats = slopes[np.maximum(place, 0)]
    return rates


class _Read(NamedTuple):
    """What raw predictions [M, 2T] say, each [M, T]."""

    rate: Floats
    """P(right) of each tier by its own curve."""
    correct: Floats
    """The same, with the differences between tiers shrunk as they are served."""
    tokens: Floats


def _read(raw: Floats, curves: Curves) -> _Read:
    count = len(curves.tiers)
    rate = 1 / (1 + np.exp(-np.clip(raw[:, :count], -30, 30)))
    centre = rate.mean(axis=1, keepdims=True)
    correct = centre + curves.shrink * (rate - centre) + (1 - curves.shrink) * curves.offset
    return _Read(rate, correct, np.exp(np.minimum(raw[:, count:], 20)))


def _fitted(  # noqa: PLR0917
    first: FirstStage,
    start: Floats,
    seen: Shrunk,
    kept: NDArray[np.bool_],
    objective: Objective,
    seed: int,
) -> Floats:
    """The change of raw predictions as a linear map of the latents, intercept last, [R + 1, 2T].

    It minimises outcome loss + objective + penalty on the change, by Adam on the prompts `kept`.
    start: the raw predictions before the change, [N, 2T].
    """
    table, raw, curves = first.table.take(kept), start[kept], first.curves
    seen = Shrunk(seen.correct[kept], seen.tokens[kept], seen.prices)
    inputs = np.hstack([first.latents[kept], np.ones((len(table), 1))])
    weights, outcome, logs = (
        tier_curves.sample_weights(table),
        np.nan_to_num(table.correct),
        log_tokens(table),
    )
    home, count = _read(raw, curves), len(table.tiers)
    change = np.zeros((inputs.shape[1], 2 * count))
    optimiser = Adam(change)
    drawn = objective.prices(seen, np.random.default_rng(seed))
    for step, (rows, price) in zip(range(_STEPS), drawn, strict=False):
        at = raw[rows] + inputs[rows] @ change
        now, weight = _read(at, curves), weights[rows]
        pull = objective.slope(
            Worths(
                predicted=value(now.correct, now.tokens, price),
                before=value(home.correct[rows], home.tokens[rows], price),
                worth=value(seen.correct[rows], seen.tokens[rows], price),
            )
        )
        believed = curves.shrink * pull * now.rate * (1 - now.rate)  # the rows of pull sum to 0
        slope = np.hstack(
            [
                weight * (now.rate - outcome[rows]) + believed,
                _TOKENS_WEIGHT * weight * np.clip(at[:, count:] - logs[rows], -2, 2)
                - pull * price * now.tokens / UNIT,
            ]
        )
        pace = _RATE * (1 - (step + 1) / _STEPS)
        optimiser.step(inputs[rows].T @ slope / len(rows) + _HOME * change, pace)
    smooth: Floats = change @ first.smoothing
    return smooth
