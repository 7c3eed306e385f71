"""IBPO: policies learnt from the optimal allocation of tokens, and a head fine-tuned for its decisions.

Yu et al., "Think Smarter not Harder: Adaptive Reasoning with Inference Aware Optimization" (ICML 2025),
limit the share of long answers in a batch. `published` keeps their form: hard labels from single outcomes,
one policy for each limit. `priced` learns from cross-fitted, shrunk outcomes with soft labels weighted by
regret, and takes the price as an input, so that one policy serves every budget. `fine_tuned` trains the
curves of a head on outcome loss plus the regret of the decisions that follow from them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from router_model.allocation import UNIT, allocate, demand, value
from router_model.arrays import Floats
from router_model.head_parts import Curves
from router_model.training import tier_curves
from router_model.training.adam import Adam
from router_model.training.outcomes import OutcomeTable, log_tokens
from router_model.training.train import Trained

_PRIOR = 4.0  # number of samples that a cross-fitted estimate is worth
_PRICES = 12
_TEMPERATURES = (0.03, 0.1, 0.3)
_SHARES = (0.25, 0.5, 0.75)  # q+, as in the paper
_RIDGE = 0.01


class Evidence(NamedTuple):
    """Outcomes shrunk towards cross-fitted estimates, [N, T], and falling prices that span the budgets."""

    correct: Floats
    tokens: Floats
    prices: Floats

    def utility(self, price: float) -> Floats:
        """The value of every tier, [N, T]."""
        return value(self.correct, self.tokens, price)


def evidence(trained: Trained) -> Evidence:
    """(m · outcome + 4 · estimate) / (m + 4) for m samples, and prices at which estimates change tiers."""
    table = trained.views[0].table
    correct, tokens = trained.estimates[table.name]
    samples = table.samples
    _, steps = demand(correct, tokens)
    high, low = np.quantile(steps, (0.98, 0.02)) if len(steps) else (1.0, 1.0)
    return Evidence(
        (samples * np.nan_to_num(table.correct) + _PRIOR * correct) / (samples + _PRIOR),
        (samples * np.nan_to_num(table.tokens) + _PRIOR * tokens) / (samples + _PRIOR),
        np.geomspace(max(high, 1e-6), max(low, 1e-7), _PRICES),
    )


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares


@dataclass(frozen=True)
class Priced:
    """softmax(weights · [x, s x, s² x]), with x the latents and 1, and s the standardised log price."""

    weights: Floats
    centre: float
    scale: float

    def features(self, latents: Floats, price: float) -> Floats:
        """[N, 3 (R + 1)]. Prices far outside the trained range are clipped to it."""
        place = (np.log(np.clip(price, 1e-9, 1e9)) - self.centre) / self.scale
        s = float(np.clip(place, -2.5, 2.5))
        x = np.hstack([latents, np.ones((len(latents), 1))])
        return np.hstack([x, s * x, s * s * x])

    def choose(self, latents: Floats, price: float) -> Floats:
        """The most likely tier, [N, T] of 0 and 1."""
        scores = self.features(latents, price) @ self.weights
        chosen: Floats = np.eye(scores.shape[1])[scores.argmax(axis=1)]
        return chosen


def priced(trained: Trained, seed: int) -> Priced:
    """IBPO with a price as input. The temperature is the best one on a held-out fold."""
    del seed
    view, seen = trained.views[0], evidence(trained)
    kept = view.fold != 0
    best = _TEMPERATURES[1]
    if kept.any() and not kept.all():
        held = Evidence(seen.correct[~kept], seen.tokens[~kept], seen.prices)
        part = Evidence(seen.correct[kept], seen.tokens[kept], seen.prices)
        worth = {
            t: _worth(_imitate(view.latents[kept], part, t), view.latents[~kept], held) for t in _TEMPERATURES
        }
        best = max(worth, key=worth.__getitem__)
    return _imitate(view.latents, seen, best)


def _worth(policy: Priced, latents: Floats, seen: Evidence) -> float:
    """Mean utility of the choices over the prices, scaled by the range that a choice can change."""
    total = 0.0
    for price in seen.prices:
        utility = seen.utility(price)
        span = (utility.max(axis=1) - utility.min(axis=1)).mean() + 1e-9
        total += float((policy.choose(latents, price) * utility).sum(axis=1).mean() / span)
    return total


def _imitate(latents: Floats, seen: Evidence, temperature: float) -> Priced:
    """Minimise cross-entropy to soft allocations: targets ∝ exp(utility / τ), weights max − mean utility."""
    logs = np.log(seen.prices)
    empty = Priced(np.zeros(0), float(logs.mean()), float(logs.std()) + 1e-6)
    utility = np.vstack([seen.utility(price) for price in seen.prices])
    targets = _softmax(utility / temperature)
    weight = utility.max(axis=1) - utility.mean(axis=1)
    weight = weight / (weight.mean() + 1e-12)
    features = np.vstack([empty.features(latents, price) for price in seen.prices])
    shape = (features.shape[1], utility.shape[1])

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        scores = features @ weights
        shares = _softmax(scores)
        entropy = -(weight * (targets * np.log(shares + 1e-12)).sum(axis=1)).mean()
        slope = features.T @ (weight[:, None] * (shares - targets)) / len(weight)
        return entropy + _RIDGE / 2 * float((weights**2).sum()), (slope + _RIDGE * weights).ravel()

    start = np.zeros(shape[0] * shape[1])
    optimum = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return replace(empty, weights=optimum.x.reshape(shape))


@dataclass(frozen=True)
class Published:
    """One classifier per limit on the share of long answers, used at prices near the one where it binds."""

    models: tuple[tuple[float, Floats], ...]
    """(log price, weights of P(long)) of each classifier."""
    ends: tuple[int, int]
    """Positions of the standard and of the long tier."""
    count: int
    """Number of tiers."""

    def choose(self, latents: Floats, price: float) -> Floats:
        """The long tier where its probability exceeds one half, [N, T] of 0 and 1."""
        place = float(np.log(np.clip(price, 1e-9, 1e9)))
        _, weights = min(self.models, key=lambda model: abs(model[0] - place))
        long = latents @ weights[:-1] + weights[-1] > 0
        chosen = np.zeros((len(latents), self.count))
        chosen[np.arange(len(latents)), np.where(long, self.ends[1], self.ends[0])] = 1.0
        return chosen


def published(trained: Trained, seed: int) -> Published:
    """The paper's form: in each batch, the share q⁺ of prompts with the largest reward margin should be long.

    Prompts whose group has no right answer are ignored. A batch is the whole table.
    """
    del seed
    view = trained.views[0]
    table: OutcomeTable = view.table
    correct, tokens = np.nan_to_num(table.correct), np.nan_to_num(table.tokens)
    ends = int(tokens.mean(axis=0).argmin()), int(correct.mean(axis=0).argmax())
    pair, extra = correct[:, ends], float((tokens[:, ends[1]] - tokens[:, ends[0]]).mean())
    density = np.tile([0.0, 1.0], (len(table), 1))
    models = []
    for share in _SHARES:
        long = allocate(pair, density, share).probabilities[:, 1] > 0.5
        feasible = np.where(long, pair[:, 1], pair[:, 0]) > 0
        weights = tier_curves.logistic(view.latents, long.astype(float), feasible.astype(float), penalty=1.0)
        margin = float(np.quantile(pair[:, 1] - pair[:, 0], 1 - share))
        models.append((float(np.log(max(margin, 0.02 * (1 - share)) / max(extra, 1e-9) * UNIT)), weights))
    return Published(tuple(models), ends, len(table.tiers))


_STEPS, _RATE = 200, 0.01
_REGRET, _HOME = 1.0, 0.02  # weights of the regret and of the distance from the outcome curves


def fine_tuned(trained: Trained, seed: int) -> Curves:
    """Curves that minimise outcome loss + regret of priced decisions, starting from the outcome curves.

    Decisions are soft: a tier has probability ∝ exp(utility / τ), where τ is a twentieth of the span of
    utilities. Prices are drawn anew for each prompt and step, over the whole range of budgets.
    """
    view, seen = trained.views[0], evidence(trained)
    curves = trained.head.sets[view.table.name]
    first = len(trained.head.trunk.hidden_bias) + view.columns.start
    own = slice(first, first + view.columns.stop - view.columns.start)
    draw = np.random.default_rng(seed)
    weights = np.zeros((view.latents.shape[1] + 1, 2 * len(curves.tiers)))
    optimiser = Adam(weights)
    inputs = np.hstack([view.latents, np.ones((len(view.table), 1))])
    start = trained.raw[view.table.name]
    for step in range(1, _STEPS + 1):
        price = np.exp(draw.uniform(np.log(seen.prices[-1]), np.log(seen.prices[0]), (len(inputs), 1)))
        slope = _slopes(start + inputs @ weights, view.table, seen, price)
        optimiser.step(inputs.T @ slope + _HOME * weights, _RATE * (1 - step / _STEPS))
    changed = curves.weights.copy()
    changed[own] += weights[:-1].astype(np.float32)
    return replace(curves, weights=changed, bias=curves.bias + weights[-1].astype(np.float32))


def _slopes(raw: Floats, table: OutcomeTable, seen: Evidence, price: Floats) -> Floats:
    """Gradient of the mean loss with respect to logits and log tokens, [N, 2T]."""
    count = len(table.tiers)
    correct = 1 / (1 + np.exp(-np.clip(raw[:, :count], -30, 30)))
    tokens = np.exp(np.minimum(raw[:, count:], 20))
    gain = value(correct, tokens, price)
    span = np.maximum((gain.max(axis=1) - gain.min(axis=1)).mean() / 20, 1e-4)
    shares = _softmax(gain / span)
    worth = value(seen.correct, seen.tokens, price)
    pull = -shares * (worth - (shares * worth).sum(axis=1, keepdims=True)) / span * _REGRET
    slope = np.empty_like(raw)
    weight, logs = tier_curves.sample_weights(table), log_tokens(table)
    slope[:, :count] = weight * (correct - np.nan_to_num(table.correct)) + pull * correct * (1 - correct)
    slope[:, count:] = 0.5 * weight * np.clip(raw[:, count:] - logs, -2, 2) - pull * price * tokens / UNIT
    return slope / len(raw)
