"""The hidden layer above latents and counts: small tanh networks, trained by Adam on all tables at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_model.training.adam import Adam
from router_model.training.outcomes import FOLDS

Array = NDArray[Any]
"""float32 during training, float64 otherwise."""

_WIDTH = 48
_RATE, _DECAY = 3e-3, 3e-3
_TOKENS_WEIGHT = 0.5
_STEPS = 900, 2400  # fewest and most Adam steps
_BATCH = 64, 256


@dataclass(frozen=True)
class Targets:
    """What the network learns, of all tables' T tiers side by side."""

    correct: Array
    """In [0, 1], [P, T]."""
    tokens: Array
    """Standardised logarithms, [P, T]."""
    weight: Array
    """[P, T]; 0 where unknown."""

    def take(self, rows: NDArray[np.bool_]) -> Targets:
        """The marked prompts."""
        return Targets(self.correct[rows], self.tokens[rows], self.weight[rows])


@dataclass(frozen=True)
class Network:
    """Outputs [2T] = tanh(x · hidden + bias) · weights + x · skip + shift: logits, then log tokens."""

    hidden: Array
    hidden_bias: Array
    weights: Array
    skip: Array
    shift: Array

    def __call__(self, inputs: Array) -> Array:
        above: Array = np.tanh(inputs @ self.hidden + self.hidden_bias) @ self.weights
        out: Array = above + inputs @ self.skip + self.shift
        return out


def fit_network(inputs: Array, targets: Targets, seed: int) -> Network:
    """Binomial loss of correctness plus Huber loss of log tokens, L2 penalty, cosine learning rate."""
    draw = np.random.default_rng(seed)
    inputs = inputs.astype(np.float32)  # takes half the time, and the data is noisier than float32
    targets = Targets(
        *(part.astype(np.float32) for part in (targets.correct, targets.tokens, targets.weight))
    )
    count, width = inputs.shape
    tiers = targets.correct.shape[1]
    total = np.maximum(targets.weight.sum(axis=0), 1e-9)
    rate = np.clip((targets.weight * targets.correct).sum(axis=0) / total, 0.02, 0.98)
    parts = {
        "hidden": draw.normal(0, 1 / np.sqrt(width), (width, _WIDTH)),
        "hidden_bias": np.zeros(_WIDTH),
        "weights": draw.normal(0, 0.1 / np.sqrt(_WIDTH), (_WIDTH, 2 * tiers)),
        "skip": np.zeros((width, 2 * tiers)),
        "shift": np.concatenate((np.log(rate / (1 - rate)), np.zeros(tiers))),
    }
    parts = {name: part.astype(np.float32) for name, part in parts.items()}
    decay = {"hidden": _DECAY, "weights": _DECAY, "skip": 3 * _DECAY}
    optimisers = {name: Adam(part) for name, part in parts.items()}
    batch = int(np.clip(count // 40, *_BATCH))
    steps = int(np.clip(60 * count / batch, *_STEPS))
    order = np.zeros(0, np.int64)
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = np.concatenate((order, draw.permutation(count)))
        rows, order = order[:batch], order[batch:]
        gradients = _gradients(parts, inputs[rows], targets, rows)
        pace = _RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        for name, part in parts.items():
            optimisers[name].step(gradients[name] + decay.get(name, 0.0) * part, pace)
    return Network(**{name: part.astype(np.float64) for name, part in parts.items()})


def without_folds(inputs: Array, targets: Targets, fold: NDArray[np.int64], seed: int) -> Array:
    """Outputs for all P prompts by a network that was trained without each fold, [FOLDS, P, 2T]."""
    outputs = np.zeros((FOLDS, len(inputs), 2 * targets.correct.shape[1]))
    for part in np.unique(fold):
        kept = fold != part
        outputs[part] = fit_network(inputs[kept], targets.take(kept), seed + int(part))(inputs)
    return outputs


def _gradients(
    parts: dict[str, Array], inputs: Array, targets: Targets, rows: NDArray[np.int64]
) -> dict[str, Array]:
    tiers = targets.correct.shape[1]
    above = np.tanh(inputs @ parts["hidden"] + parts["hidden_bias"])
    out = above @ parts["weights"] + inputs @ parts["skip"] + parts["shift"]
    weight = targets.weight[rows] / len(rows)
    slope = np.empty_like(out)
    slope[:, :tiers] = weight * (1 / (1 + np.exp(-np.clip(out[:, :tiers], -30, 30))) - targets.correct[rows])
    slope[:, tiers:] = weight * _TOKENS_WEIGHT * np.clip(out[:, tiers:] - targets.tokens[rows], -2, 2)
    below = (slope @ parts["weights"].T) * (1 - above**2)
    return {
        "hidden": inputs.T @ below,
        "hidden_bias": below.sum(axis=0),
        "weights": above.T @ slope,
        "skip": inputs.T @ slope,
        "shift": slope.sum(axis=0),
    }


def mean(members: list[Network]) -> Network:
    """One network whose outputs are the mean of the members' outputs."""
    share = 1 / len(members)
    return Network(
        hidden=np.hstack([member.hidden for member in members]),
        hidden_bias=np.concatenate([member.hidden_bias for member in members]),
        weights=np.vstack([member.weights * share for member in members]),
        skip=np.sum([member.skip * share for member in members], axis=0),
        shift=np.sum([member.shift * share for member in members], axis=0),
    )
