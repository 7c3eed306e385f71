"""IBPO beside the head: policies learnt from the optimal allocation of tokens.

Yu et al., "Think Smarter not Harder: Adaptive Reasoning with Inference Aware Optimization" (ICML 2025),
limit the share of long answers in a batch. `published` keeps their form: hard labels from the outcomes of
groups of samples, one policy for each limit. `mixed` and `ranked` let the same labels spend any budget.
`priced` learns from cross-fitted, shrunk outcomes with soft labels weighted by regret, and takes the price as
an input. The second stage of the head itself is `router_model.training.ibpo`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from router_model.allocation import UNIT, allocate, value
from router_model.arrays import Floats
from router_model.training import tier_curves
from router_model.training.objectives import Shrunk, evidence, softmax
from router_model.training.outcomes import OutcomeTable
from router_model.training.train import Trained

_TEMPERATURES = (0.03, 0.1, 0.3)
_SHARES = (0.25, 0.5, 0.75)  # q+, as in the paper
_RIDGE = 0.01


def learnt_from(trained: Trained) -> Shrunk:
    """The evidence of a head's first table."""
    table = trained.views[0].table
    return evidence(table.correct, table.tokens, trained.estimates[table.name], table.samples)


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
    view, seen = trained.views[0], learnt_from(trained)
    kept = view.fold != 0
    best = _TEMPERATURES[1]
    if kept.any() and not kept.all():
        held = Shrunk(seen.correct[~kept], seen.tokens[~kept], seen.prices)
        part = Shrunk(seen.correct[kept], seen.tokens[kept], seen.prices)
        worth = {
            t: _worth(_imitate(view.latents[kept], part, t), view.latents[~kept], held) for t in _TEMPERATURES
        }
        best = max(worth, key=worth.__getitem__)
    return _imitate(view.latents, seen, best)


def _worth(policy: Priced, latents: Floats, seen: Shrunk) -> float:
    """Mean utility of the choices over the prices, scaled by the range that a choice can change."""
    total = 0.0
    for price in seen.prices:
        utility = seen.utility(price)
        span = (utility.max(axis=1) - utility.min(axis=1)).mean() + 1e-9
        total += float((policy.choose(latents, price) * utility).sum(axis=1).mean() / span)
    return total


def _imitate(latents: Floats, seen: Shrunk, temperature: float) -> Priced:
    """Minimise cross-entropy to soft allocations: targets ∝ exp(utility / τ), weights max − mean utility."""
    logs = np.log(seen.prices)
    empty = Priced(np.zeros(0), float(logs.mean()), float(logs.std()) + 1e-6)
    utility = np.vstack([seen.utility(price) for price in seen.prices])
    targets = softmax(utility / temperature)
    weight = utility.max(axis=1) - utility.mean(axis=1)
    weight = weight / (weight.mean() + 1e-12)
    features = np.vstack([empty.features(latents, price) for price in seen.prices])
    shape = (features.shape[1], utility.shape[1])

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        scores = features @ weights
        shares = softmax(scores)
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
        nearest = min(range(len(self.models)), key=lambda index: abs(self.models[index][0] - place))
        return self.beyond(self.scores(latents, nearest), 0.0)

    def scores(self, latents: Floats, index: int) -> Floats:
        """Logits of P(long) by one classifier, [N]."""
        weights = self.models[index][1]
        logits: Floats = latents @ weights[:-1] + weights[-1]
        return logits

    def beyond(self, scores: Floats, threshold: float) -> Floats:
        """The long tier where scores [N] exceed the threshold, the standard tier elsewhere, [N, T]."""
        chosen: Floats = np.eye(self.count)[np.where(scores > threshold, self.ends[1], self.ends[0])]
        return chosen


def published(trained: Trained, seed: int, *, every: bool = False) -> Published:
    """The paper's form: in each batch, the share q⁺ of prompts with the largest reward margin should be long.

    A batch is the whole table. A group's reward is the mean over its samples, as many as the table has.
    Prompts whose group has no right answer are ignored, as in the paper, unless `every` is set.
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
        feasible = (np.where(long, pair[:, 1], pair[:, 0]) > 0) | every
        weights = tier_curves.logistic(view.latents, long.astype(float), feasible.astype(float), penalty=1.0)
        margin = float(np.quantile(pair[:, 1] - pair[:, 0], 1 - share))
        models.append((float(np.log(max(margin, 0.02 * (1 - share)) / max(extra, 1e-9) * UNIT)), weights))
    return Published(tuple(models), ends, len(table.tiers))


@dataclass(frozen=True)
class Mixed:
    """The published policies and the fixed tiers: at each price, whichever was worth most in training.

    Neighbouring prices may be mixed at random, so this reaches the hull of all of them.
    """

    policy: Published
    correct: Floats
    """Share of right answers of each candidate on the training prompts: the policies, then the tiers."""
    tokens: Floats
    """Mean tokens, likewise."""

    def choose(self, latents: Floats, price: float) -> Floats:
        """One candidate's tiers for all prompts, [N, T] of 0 and 1."""
        worth = value(self.correct, self.tokens, min(price, 1e9))
        best = int(worth.argmax())
        tier = best - len(self.policy.models)
        if tier >= 0:
            return np.tile(np.eye(self.policy.count)[tier], (len(latents), 1))
        return self.policy.beyond(self.policy.scores(latents, best), 0.0)


def mixed(trained: Trained, seed: int) -> Mixed:
    """`published`, mixed with fixed tiers."""
    policy, view = published(trained, seed), trained.views[0]
    correct, tokens = np.nan_to_num(view.table.correct), np.nan_to_num(view.table.tokens)
    chosen = [policy.beyond(policy.scores(view.latents, index), 0.0) for index in range(len(policy.models))]
    chosen += [np.tile(tier, (len(view.table), 1)) for tier in np.eye(policy.count)]
    reached = [[(choice * part).sum(axis=1).mean() for choice in chosen] for part in (correct, tokens)]
    return Mixed(policy, *np.array(reached))


@dataclass(frozen=True)
class Ranked:
    """Long for the prompts with the highest P(long). The price sets their share, from none to all."""

    policy: Published
    scores: Floats
    """Logits of P(long) of the training prompts, rising."""
    middle: float
    """The price at which half are long. Any falling share gives the same curve of accuracy against tokens."""

    def choose(self, latents: Floats, price: float) -> Floats:
        """[N, T] of 0 and 1."""
        share = 0.0 if np.isinf(price) else self.middle / (self.middle + price)
        if price <= 0 or share <= 0:
            threshold = -np.inf if price <= 0 else np.inf
        else:
            threshold = float(np.quantile(self.scores, 1 - share))
        return self.policy.beyond(self.policy.scores(latents, 1), threshold)


def ranked(trained: Trained, seed: int) -> Ranked:
    """Prompts in the order of the published P(long) at q⁺ = 50 %. Those without a right answer are kept."""
    policy, view = published(trained, seed, every=True), trained.views[0]
    means = np.nan_to_num(view.table.tokens).mean(axis=0)
    middle = 0.3 * UNIT / max(float(means.max() - means.min()), 1e-9)  # in the midst of the results' prices
    return Ranked(policy, np.sort(policy.scores(view.latents, 1)), middle)
