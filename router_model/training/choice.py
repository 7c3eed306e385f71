"""Chooses how much a small table can teach: constants, the length of a prompt, a ridge, or the full head.

A few hundred single outcomes rarely support eight latents. Every candidate therefore decides about prompts
that it was not fitted to, and a richer one must earn more than a simpler one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model.allocation import UNIT, value
from router_model.arrays import Floats
from router_model.training import tier_curves
from router_model.training.outcomes import OutcomeTable

SMALL = 500
"""Prompts from which on the full head needs no comparison."""
FULL = "head"
"""The name of the fit that uses everything the head sees."""
CONSTANTS = "constants"
"""The name of the fit that treats all prompts alike."""
_PRICES = np.geomspace(0.05, 5, 12)  # in the largest mean gain per largest mean extra tokens
_RIDGE = 100.0  # penalty on standardised latents and counts


class Fit(NamedTuple):
    """One way to predict the outcomes of a table with N prompts and T tiers."""

    name: str
    raw: Floats
    """Cross-fitted logits and log tokens, [N, 2T]."""
    weights: Floats
    """Of the inputs of the curves, intercept last, [inputs + 1, 2T]."""


def simple_fits(
    inputs: Floats, latents: slice, counts: slice, table: OutcomeTable, fold: NDArray[np.int64]
) -> list[Fit]:
    """Constants, length alone, and a ridge on latents and counts, simplest first.

    inputs [N, inputs]: cross-fitted inputs of the curves, of which `latents` and `counts` are used.
    """
    used = {
        CONSTANTS: np.zeros(0, np.int64),
        "length": np.array([counts.start]),
        "ridge": np.concatenate(
            (np.arange(latents.start, latents.stop), np.arange(counts.start, counts.stop))
        ),
    }
    fits = []
    for name, columns in used.items():
        penalty = _RIDGE if name == "ridge" else 1.0
        narrow = tier_curves.regress(inputs[:, columns], table, penalty)
        weights = np.zeros((inputs.shape[1] + 1, narrow.shape[1]))
        weights[columns], weights[-1] = narrow[:-1], narrow[-1]
        fits.append(Fit(name, tier_curves.cross_regress(inputs[:, columns], table, fold, penalty), weights))
    return fits


def best_fit(  # noqa: PLR0917
    full: Fit, inputs: Floats, latents: slice, counts: slice, table: OutcomeTable, fold: NDArray[np.int64]
) -> Fit:
    """The full fit; of a small table, or one without a difference to learn, the simplest one that is as good.

    See `simple_fits` for the inputs.
    """
    if len(table) >= SMALL and not is_flat(table):
        return full
    return simplest([*simple_fits(inputs, latents, counts, table, fold), full], table)


def simplest(fits: Sequence[Fit], table: OutcomeTable) -> Fit:
    """The first fit whose decisions are within a standard error of the best; `fits` are simplest first."""
    earned = [decided(fit.raw, table) for fit in fits]
    best = max(earned, key=lambda each: float(each.mean()))
    for fit, own in zip(fits, earned, strict=True):
        short = best - own
        if short.mean() <= short.std() / np.sqrt(len(short)):
            return fit
    raise AssertionError


def is_flat(table: OutcomeTable) -> bool:
    """Whether no tier is ever better than another: all answers right, all wrong, or equal at all tiers."""
    return bool((np.nanmax(table.correct, axis=1) == np.nanmin(table.correct, axis=1)).all())


def decided(raw: Floats, table: OutcomeTable) -> Floats:
    """The utility of each prompt's decisions by raw predictions [N, 2T], mean over prices, [N].

    Cells that were not measured count as the mean of their tier.
    """
    count = len(table.tiers)
    truth = [
        np.where(table.samples > 0, cells, np.nanmean(cells, axis=0))
        for cells in (table.correct, table.tokens)
    ]
    logs = np.minimum(raw[:, count:], 20)
    # predictions of log tokens are turned into means by one factor per tier
    bias = np.log(np.maximum(truth[1].mean(axis=0), 1)) - np.log(np.maximum(np.exp(logs).mean(axis=0), 1e-9))
    correct, tokens = 1 / (1 + np.exp(-np.clip(raw[:, :count], -30, 30))), np.exp(logs + bias)
    right, spent = truth[0].mean(axis=0), truth[1].mean(axis=0)
    unit = max(float(np.ptp(right)), 0.01) / max(float(np.ptp(spent)), 1e-9) * UNIT
    each = np.arange(len(table))
    total = np.zeros(len(table))
    for price in _PRICES * unit:
        pick = value(correct, tokens, price).argmax(axis=1)
        total += value(truth[0], truth[1], price)[each, pick]
    return total / len(_PRICES)
