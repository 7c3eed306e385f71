"""Tier curves: logistic and log-linear regression on the trunk's outputs, with corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_model.arrays import Floats
from router_model.head_parts import Curves
from router_model.training.outcomes import FOLDS, OutcomeTable, log_tokens

_PENALTY = 10.0  # on standardised latents; 1/C in scikit-learn's terms
_MOST_SAMPLES = 8  # further samples of one prompt add no weight, because prompts differ too
FEWEST = 20
"""Prompts below which nothing is calibrated."""


def sample_weights(table: OutcomeTable) -> Floats:
    """The weight of each cell, [N, T]: rises with its samples, mean 1 over the known cells of a tier."""
    weight = np.minimum(table.samples, _MOST_SAMPLES).astype(float)
    known = np.maximum((weight > 0).sum(axis=0), 1)
    scaled: Floats = weight / np.maximum(weight.sum(axis=0) / known, 1e-9)
    return scaled


def logistic(inputs: Floats, correct: Floats, weight: Floats, penalty: float, prior: float = 0.0) -> Floats:
    """Ridge logistic regression on fractional labels by Newton steps, [D + 1], intercept last.

    The penalty pulls the slopes towards `prior`, and the intercept slightly towards a rate of 1/2.
    """
    design = np.hstack([inputs, np.ones((len(inputs), 1))])
    pull = np.full(design.shape[1], penalty)
    pull[-1] = 0.5
    home = np.full(design.shape[1], prior)
    home[-1] = 0.0
    slopes = np.zeros(design.shape[1])

    def loss(at: Floats) -> float:
        logits = design @ at
        return float(
            (weight * (np.logaddexp(0, logits) - correct * logits)).sum()
            + (pull * (at - home) ** 2).sum() / 2
        )

    now = loss(slopes)
    for _ in range(50):
        rate = 1 / (1 + np.exp(-np.clip(design @ slopes, -30, 30)))
        gradient = design.T @ (weight * (rate - correct)) + pull * (slopes - home)
        curvature = (design * (weight * np.maximum(rate * (1 - rate), 1e-6))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(pull), gradient)
        while (after := loss(slopes - step)) > now and np.abs(step).max() > 1e-7:
            step /= 2
        slopes, now = slopes - step, min(after, now)
        if np.abs(step).max() < 1e-6:
            break
    return slopes


def linear(inputs: Floats, targets: Floats, weight: Floats, penalty: float) -> Floats:
    """Ridge regression, [D + 1], with an unpenalised intercept last."""
    design = np.hstack([inputs, np.ones((len(inputs), 1))])
    pull = np.full(design.shape[1], penalty)
    pull[-1] = 1e-6
    return np.linalg.solve(
        (design * weight[:, None]).T @ design + np.diag(pull), design.T @ (weight * targets)
    )


def regress(inputs: Floats, table: OutcomeTable, penalty: float = _PENALTY) -> Floats:
    """Regressions of all tiers' logits and log tokens on the inputs, [D + 1, 2T]."""
    weight, logs, correct = sample_weights(table), log_tokens(table), np.nan_to_num(table.correct)
    tiers = range(len(table.tiers))
    columns = [logistic(inputs, correct[:, k], weight[:, k], penalty) for k in tiers]
    columns += [linear(inputs, logs[:, k], weight[:, k], penalty) for k in tiers]
    return np.stack(columns, axis=1)


def cross_regress(inputs: Floats, table: OutcomeTable, fold: NDArray[np.int64]) -> Floats:
    """Predictions [N, 2T] for each prompt, by `regress` without the prompt's fold."""
    predictions = np.zeros((len(table), 2 * len(table.tiers)))
    for part in range(FOLDS):
        here = fold == part
        if here.any():
            weights = regress(inputs[~here], table.take(~here))
            predictions[here] = inputs[here] @ weights[:-1] + weights[-1]
    return predictions


@dataclass(frozen=True)
class Correction:
    """What cross-fitted predictions show about the curves' errors."""

    slope: Floats
    """Of the logits, [T]."""
    shift: Floats
    """Of the logits, [T]."""
    longer: Floats
    """Shift of the log tokens, [T]."""
    spread: Floats
    """See `Curves.spread`."""
    shrink: float
    """See `Curves.shrink`."""
    offset: Floats
    """See `Curves.offset`."""

    @property
    def scale(self) -> Floats:
        """Factors of the raw predictions, [2T]."""
        return np.concatenate((self.slope, np.ones(len(self.slope))))

    @property
    def move(self) -> Floats:
        """Added to the scaled predictions, [2T]."""
        return np.concatenate((self.shift, self.longer))


def deviance(raw: Floats, table: OutcomeTable) -> Floats:
    """Binomial deviance of raw predictions [N, 2T] on the outcomes, mean over the tiers, [N]."""
    logits = np.clip(raw[:, : len(table.tiers)], -30, 30)
    weight, correct = sample_weights(table), np.nan_to_num(table.correct)
    mean: Floats = (weight * (np.logaddexp(0, logits) - correct * logits)).mean(axis=1)
    return mean


def correct_by(raw: Floats, table: OutcomeTable) -> Correction:
    """Platt scaling by tier, bias and 95th percentile of the tokens, and how much of the gains to believe.

    raw [N, 2T]: cross-fitted logits and log tokens.
    """
    count = len(table.tiers)
    weight, outcome = sample_weights(table), np.nan_to_num(table.correct)
    scaled = [
        logistic(raw[:, [k]], outcome[:, k], weight[:, k], penalty=5.0, prior=1.0) for k in range(count)
    ]
    slope = np.clip([fit[0] for fit in scaled], 0.0, 3.0)
    shift = np.array([fit[1] for fit in scaled])
    logits = raw[:, :count] * slope + shift
    correct = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    known = table.samples > 0
    tokens = np.where(known, table.tokens, 0.0)
    predicted = np.where(known, np.exp(np.minimum(raw[:, count:], 20)), 0.0)
    ratio = np.maximum(tokens.sum(axis=0), 1e-9) / np.maximum(predicted.sum(axis=0), 1e-9)
    relative = np.where(known, tokens / np.maximum(predicted * ratio, 1e-9), np.nan)
    shrink, offset = _believed(correct, np.where(known, table.correct, np.nan))
    return Correction(slope, shift, np.log(ratio), np.nanquantile(relative, 0.95, axis=0), shrink, offset)


def _believed(correct: Floats, outcome: Floats) -> tuple[float, Floats]:
    """Slope of measured against predicted differences between tiers, in [0, 1], and the mean differences.

    The slope is shrunk by the positive part of 1 − 1/t², so that noise is not believed (James-Stein).
    """
    deviation = correct - correct.mean(axis=1, keepdims=True)
    offset = deviation.mean(axis=0)
    whole = np.isfinite(outcome).all(axis=1)
    if whole.sum() < FEWEST or outcome.shape[1] == 1:
        return 1.0, offset
    gain = (deviation - offset)[whole]
    measured = outcome[whole] - outcome[whole].mean(axis=1, keepdims=True)
    measured = measured - measured.mean(axis=0)
    power = (gain**2).sum(axis=1)
    if power.sum() < 1e-12:
        return 0.0, offset
    slope = float((gain * measured).sum() / power.sum())
    error = (gain * measured).sum(axis=1) - slope * power
    variance = float((error**2).sum()) / float(power.sum()) ** 2
    believed = slope * max(0.0, 1 - variance / max(slope**2, 1e-12))
    return min(max(0.0, believed), 1.0), offset


def corrected(curves: Curves, correction: Correction) -> Curves:
    """The curves with the correction folded into their weights."""
    return replace(
        curves,
        weights=(curves.weights * correction.scale).astype(np.float32),
        bias=(curves.bias * correction.scale + correction.move).astype(np.float32),
        spread=correction.spread.astype(np.float32),
        shrink=correction.shrink,
        offset=correction.offset.astype(np.float32),
    )


def apply_correction(correction: Correction, raw: Floats, table: OutcomeTable) -> tuple[Floats, Floats]:
    """P(right) and E[tokens], [N, T], of raw predictions [N, 2T]."""
    same = np.vstack([np.eye(raw.shape[1]), np.zeros(raw.shape[1])])
    return corrected(uncorrected(table, same), correction).outcomes(raw.astype(np.float32))


def uncorrected(table: OutcomeTable, weights: Floats, lengths: Mapping[str, float] | None = None) -> Curves:
    """Curves from plain weights [inputs + 1, 2T], intercept last."""
    count, single = len(table.tiers), np.float32
    return Curves(
        name=table.name,
        tiers=table.tiers,
        weights=weights[:-1].astype(single),
        bias=weights[-1].astype(single),
        low=np.nanmin(table.tokens, axis=0).astype(single),
        high=np.nanmax(table.tokens, axis=0).astype(single),
        spread=np.ones(count, single),
        shrink=1.0,
        offset=np.zeros(count, single),
        lengths=lengths or {},
    )


def rising(lengths: Mapping[str, float]) -> dict[str, float]:
    """The lengths in rising order; none if two tiers have the same, because their order is then unknown."""
    ordered = dict(sorted(lengths.items(), key=lambda item: item[1]))
    return ordered if len(set(ordered.values())) == len(ordered) > 1 else {}


def metrics(table: OutcomeTable, raw: Floats, correction: Correction) -> dict[str, Any]:
    """The entry of a manifest about a set of curves, from cross-fitted predictions [N, 2T]."""
    constant = np.zeros_like(raw)
    rate = np.clip(np.nanmean(table.correct, axis=0), 1e-3, 1 - 1e-3)
    constant[:, : len(rate)] = np.log(rate / (1 - rate))
    return {
        "prompts": len(table),
        "gain_believed": round(correction.shrink, 4),
        "deviance": round(float(deviance(raw, table).mean()), 4),
        "deviance_of_constant": round(float(deviance(constant, table).mean()), 4),
        "tiers": _means(table, *apply_correction(correction, raw, table)),
    }


def _means(table: OutcomeTable, correct: Floats, tokens: Floats) -> dict[str, dict[str, float]]:
    """By tier, the mean of cross-fitted P(right) and E[tokens], each [N, T], and its standard error.

    The error is that of the mean difference between outcome and estimate over the measured prompts.
    """
    entries: dict[str, dict[str, float]] = {}
    for column, tier in enumerate(table.tiers):
        known = table.samples[:, column] > 0
        size = np.sqrt(max(int(known.sum()), 1))
        entry = entries[tier] = {}
        for name, estimate, outcome, digits in (
            ("correct", correct, table.correct, 4),
            ("tokens", tokens, table.tokens, 2),
        ):
            error = (outcome - estimate)[known, column].std() / size
            entry |= {
                name: round(float(estimate[known, column].mean()), digits),
                f"{name}_error": round(float(error), digits),
            }
    return entries
