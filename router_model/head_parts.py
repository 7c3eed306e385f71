"""The parts of a head: the trunk that reads a prompt, the curves of one model, and the plan for its tiers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router_model import artifact
from router_model.arrays import Floats, Singles
from router_model.encoders.base import Features
from router_model.predictor import TierLength

_CLIP = 4.0  # standard deviations beyond which a count says no more
_OCTAVES = 2.0  # how far beyond the longest measured tier the curves may go on rising


@dataclass(frozen=True, slots=True)
class Curves:
    """How the tiers of one model respond to what the trunk sees: the part that `calibrate` fits.

    weights [inputs, 2T], bias [2T]: logits of P(right), then logarithms of E[tokens]; by tier.
    low, high: fewest and most tokens seen, [T]. spread: p95 / mean, [T].
    shrink in [0, 1]: how much of the predicted differences between tiers held on prompts not trained on;
    the rest is replaced by `offset` [T], the tiers' mean differences.
    lengths: reasoning tokens of some tiers, rising; only curves with such serve models not measured.
    bound: they serve no model but the one that they are called after.
    """

    name: str
    tiers: tuple[str, ...]
    weights: Singles
    bias: Singles
    low: Singles
    high: Singles
    spread: Singles
    shrink: float
    offset: Singles
    lengths: Mapping[str, float] = field(default_factory=dict)
    bound: bool = False

    def outcomes(self, inputs: Singles) -> tuple[Floats, Floats]:
        """P(right) and E[tokens] for inputs [..., inputs], each [..., T]."""
        raw = inputs @ self.weights + self.bias
        count = len(self.tiers)
        correct = 1 / (1 + np.exp(-np.minimum(np.maximum(raw[..., :count], -30), 30)))  # np.clip is slower
        centre = correct.mean(axis=-1, keepdims=True)
        gain = self.shrink * (correct - centre) + (1 - self.shrink) * self.offset
        tokens = np.clip(np.exp(np.minimum(raw[..., count:], 20)), self.low, self.high)
        return np.clip(centre + gain, 0, 1).astype(np.float64), tokens.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Trunk:
    """Text to inputs of the curves, shared by all models.

    rarity [SIZE]: inverse document frequency, 0 where never seen. mean, scale [DENSE]: of the counts.
    latents [SIZE, R], counts [DENSE, R], shift [R]: the linear map to the latent difficulties z.
    hidden [R + DENSE, H], hidden_bias [H]: a layer of tanh above z and the counts.
    strange: mean rarity, or share outside of the plane, beyond which a prompt counts as unlike the training
    data.
    plane [K, SIZE]: where the features are an embedding, the leading directions of the training data.
    """

    rarity: Singles
    mean: Singles
    scale: Singles
    latents: Singles
    counts: Singles
    shift: Singles
    hidden: Singles
    hidden_bias: Singles
    strange: float
    plane: Singles | None = None

    def see(self, features: Features) -> tuple[Singles, float]:
        """The inputs [H + R + DENSE] and how unlike the training data the prompt is (`strange`)."""
        seen = self.rarity.take(features.indices)  # half the time of indexing
        values = features.values * seen
        length = math.sqrt(float(values @ values)) or 1.0
        counts = np.clip((features.dense - self.mean) / self.scale, -_CLIP, _CLIP)
        latents = (
            (values / length) @ self.latents.take(features.indices, 0) + counts @ self.counts + self.shift
        )
        strangeness = rarity(seen) if self.plane is None else outside(values, self.plane)
        return self.above(np.concatenate((latents, counts))), strangeness

    def above(self, inputs: Singles) -> Singles:
        """Put the hidden layer in front of z and counts, [..., R + DENSE] -> [..., H + R + DENSE]."""
        return np.concatenate((np.tanh(inputs @ self.hidden + self.hidden_bias), inputs), axis=-1)


def rarity(seen: Singles) -> float:
    """Mean inverse document frequency of a prompt's n-grams; one never seen counts as `artifact.UNSEEN`."""
    if not len(seen):
        return math.inf
    return float(seen.sum() + artifact.UNSEEN * (len(seen) - np.count_nonzero(seen))) / len(seen)


def outside(vector: Singles, plane: Singles) -> float:
    """Share of a unit vector's square outside of orthonormal directions [K, D], from 0 to 1.

    The residual of ViM (Wang et al., CVPR 2022).
    """
    inside = plane @ vector
    return 1 - float(inside @ inside)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model's tiers are read off a set of curves, worked out once.

    columns: the measured tiers used. blend [asked, columns]: interpolation between them, None where the tiers
    asked about are the columns. limit: completion tokens that each tier may write.
    """

    curves: Curves
    columns: NDArray[np.intp]
    blend: Floats | None
    limit: Floats
    spread: Floats

    def outcomes(self, inputs: Singles) -> tuple[Floats, Floats]:
        """P(right) and E[tokens] for inputs [..., inputs], each [..., asked]."""
        correct, tokens = self.curves.outcomes(inputs)
        correct, tokens = correct.take(self.columns, -1), tokens.take(self.columns, -1)
        if self.blend is not None:
            rising, longer = np.maximum.accumulate(correct, -1), np.maximum.accumulate(tokens, -1)
            correct = np.minimum(np.round(rising @ self.blend.T, 9), 1.0)  # rounded: equal stays equal
            tokens = np.round(np.exp(np.log(longer) @ self.blend.T), 6)
        return correct, np.minimum(tokens, self.limit)


def plan_of(curves: Curves, columns: list[int] | None, tiers: Sequence[TierLength]) -> Plan:
    """Tiers by name (columns), or between those measured: linear in ln(1 + reasoning tokens), never falling.

    Beyond the longest measured tier the curves go on at half the slope of the last interval, for at most two
    octaves: nothing was measured there. Tokens never exceed what a tier may write.
    """
    limit = np.array([max(tier.thinking + tier.answer, 1) for tier in tiers], float)
    if columns is not None:
        return Plan(curves, np.array(columns), None, limit, curves.spread[columns].astype(float))
    known = [curves.tiers.index(tier) for tier in curves.lengths]
    at = np.log1p(list(curves.lengths.values()))
    wanted = np.log1p([max(tier.thinking, 0) for tier in tiers])
    blend = np.stack([np.interp(wanted, at, unit) for unit in np.eye(len(at))], axis=1)
    spread: Floats = blend @ curves.spread[known].astype(float)
    beyond = np.clip(wanted - at[-1], 0, _OCTAVES * math.log(2)) / 2 / max(at[-1] - at[-2], 1e-9)
    blend[:, -1] += beyond
    blend[:, -2] -= beyond
    return Plan(curves, np.array(known), blend, limit, spread)
