"""Objectives of the second stage of training: losses of priced decisions, and where their prices come from.

A policy is soft while it is trained: it takes a tier with probability π ∝ exp(v / τ), where v is the value
p̂ − λ·ĉ that the curves predict. Each loss here says how v should move, given the worth R − λ·C of each tier
by outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from router_model.allocation import demand, value
from router_model.arrays import Floats, Ints

_SHARPNESS = 20.0  # τ of the policy is the mean range of a prompt's values over this
_TILT = 5.0  # τ of the tilt is the mean range of a prompt's worth over this
_LEAST = 1e-4  # a temperature is never lower
_PRICES = 12
_ROWS = 2048  # decisions per step
_BATCH, _BATCHES, _BUDGETS = 256, 8, 8


class Shrunk(NamedTuple):
    """What a policy learns from: outcomes that are shrunk towards estimates, and prices."""

    correct: Floats
    """[N, T]"""
    tokens: Floats
    """[N, T]"""
    prices: Floats
    """Falling, from where 2 % of the steps of the exact allocation are taken to where 98 % are."""

    def utility(self, price: float | Floats) -> Floats:
        """The worth of every tier, [N, T]."""
        return value(self.correct, self.tokens, price)


def evidence(correct: Floats, tokens: Floats, estimates: tuple[Floats, Floats], samples: Ints) -> Shrunk:
    """(m · outcome + 4 · estimate) / (m + 4) for m samples, and the dual prices of the estimates' allocation.

    correct, tokens: measured, [N, T]; ignored where there are no samples. estimates: cross-fitted.
    """
    _, steps = demand(*estimates)
    high, low = np.quantile(steps, (0.98, 0.02)) if len(steps) else (1.0, 1.0)
    return Shrunk(
        _shrunk(correct, estimates[0], samples),
        _shrunk(tokens, estimates[1], samples),
        np.geomspace(max(high, 1e-6), max(low, 1e-7), _PRICES),
    )


def _shrunk(measured: Floats, estimated: Floats, samples: Ints) -> Floats:
    prior = 4.0  # the number of samples that a cross-fitted estimate is worth
    shrunk: Floats = (samples * np.nan_to_num(measured) + prior * estimated) / (samples + prior)
    return shrunk


def softmax(scores: Floats) -> Floats:
    """Shares ∝ exp(score) along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def tilt(reference: Floats, worth: Floats, temperature: float) -> Floats:
    """π* ∝ π₀ · exp(worth / τ), [..., T]: the policy of highest E[worth] − τ · KL(π ‖ π₀).

    This closed form is in Peters et al. (2010, REPS) and Korbak et al. (2022). It is π₀ for τ → ∞.
    """
    scaled = (worth - worth.max(axis=-1, keepdims=True)) / temperature
    return softmax(np.log(np.maximum(reference, 1e-300)) + scaled)


class Worths(NamedTuple):
    """M priced decisions among T tiers, each [M, T]."""

    predicted: Floats
    """Values by the curves as they are now."""
    before: Floats
    """Values by the curves of the first stage."""
    worth: Floats
    """Worth by the evidence."""


def _temperature(values: Floats, sharpness: float) -> float:
    return max(float((values.max(axis=1) - values.min(axis=1)).mean()) / sharpness, _LEAST)


def policy_gradient(at: Worths) -> Floats:
    """Slope of −Σ π·worth in v: −π (worth − Σ π·worth) / τ."""
    temperature = _temperature(at.predicted, _SHARPNESS)
    shares = softmax(at.predicted / temperature)
    slope: Floats = -shares * (at.worth - (shares * at.worth).sum(axis=1, keepdims=True)) / temperature
    return slope


def tilted(at: Worths) -> Floats:
    """Slope of τ · KL(π* ‖ π) in v, where π* is the tilt of the first stage's policy: π − π*."""
    temperature = _temperature(at.predicted, _SHARPNESS)
    target = tilt(softmax(at.before / temperature), at.worth, _temperature(at.worth, _TILT))
    return softmax(at.predicted / temperature) - target


def spo_plus(at: Worths) -> Floats:
    """Subgradient of the SPO+ loss in v: 2 (best(2v − worth) − best(worth)), with one-hot best tiers.

    Elmachtoub and Grigas, "Smart Predict, then Optimize" (2022), proposition 3, for a maximum.
    """
    tiers = np.eye(at.worth.shape[1])
    slope: Floats = (
        2.0 * tiers[(2 * at.predicted - at.worth).argmax(axis=1)] - 2.0 * tiers[at.worth.argmax(axis=1)]
    )
    return slope


def indifferent(at: Worths) -> Floats:
    """No slope: the outcome loss alone. This is the control, which learns as long but not for decisions."""
    return np.zeros_like(at.worth)


Drawn = Iterator[tuple[Ints, Floats]]
"""Rows [M] and their prices [M, 1] for each step of training, without end."""


def apart(seen: Shrunk, draw: np.random.Generator) -> Drawn:
    """Each prompt has its own price, log-uniform over the range of the evidence's prices."""
    low, high = np.log(seen.prices[-1]), np.log(seen.prices[0])
    count = len(seen.correct)
    every = np.arange(count)
    while True:
        rows = every if count <= _ROWS else np.sort(draw.choice(count, _ROWS, replace=False))
        yield rows, np.exp(draw.uniform(low, high, (len(rows), 1)))


def coupled(seen: Shrunk, draw: np.random.Generator) -> Drawn:
    """A batch shares one price: the dual price of its own exact allocation, at each of eight budgets.

    Budgets are evenly spread over what the allocation of the batch can spend, with a random start.
    """
    count = len(seen.correct)
    parts = max(-(-count // _BATCH), 1)
    batches = [
        np.sort(rows)
        for _ in range(max(_BATCHES // parts, 1))
        for rows in np.array_split(draw.permutation(count), parts)
    ]
    curves = [demand(seen.correct[rows], seen.tokens[rows]) for rows in batches]
    known = [index for index, (budgets, _) in enumerate(curves) if len(budgets)]
    while known:
        index = known[draw.integers(len(known))]
        budgets, prices = curves[index]
        asked = np.linspace(budgets[0], budgets[-1], _BUDGETS, endpoint=False)
        asked += draw.uniform(0, (budgets[-1] - budgets[0]) / _BUDGETS)
        paid = prices[np.minimum(np.searchsorted(budgets, asked), len(prices) - 1)]
        rows = batches[index]
        yield np.tile(rows, _BUDGETS), np.repeat(paid, len(rows))[:, None]
    yield from apart(seen, draw)  # no prompt has a step, so no price follows from the batch


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss of priced decisions and the source of the prices."""

    slope: Callable[[Worths], Floats]
    """Slope of the loss in the predicted values, [M, T]. Every row sums to 0."""
    prices: Callable[[Shrunk, np.random.Generator], Drawn]


OBJECTIVES = {
    "policy gradient": Objective(policy_gradient, apart),
    "policy gradient, coupled batch": Objective(policy_gradient, coupled),
    "tilt": Objective(tilted, apart),
    "SPO+": Objective(spo_plus, apart),
    "outcomes alone": Objective(indifferent, apart),
}
"""By the names that manifests and reports use."""
