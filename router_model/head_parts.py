"""The parts of a head: the trunk that reads a prompt, the curves of one model, the mapping of its tiers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model import artifact
from router_model.arrays import Floats, Singles
from router_model.encoders.base import Features
from router_model.encoders.ngrams import DENSE, standardised
from router_model.predictor import TierLength, gain_position, shortest_thinking

BELIEVED = 0.25  # share of the predicted deviation of P(right) that is kept for an unknown prompt
RAMP = 0.5  # beyond the threshold of strangeness: where a prompt counts as wholly unknown
_OCTAVES = 2.0  # how far beyond the longest measured tier the curves may continue to rise


@dataclass(frozen=True, slots=True)
class Curves:
    """How the T tiers of one model respond to what the trunk sees: the part that `calibrate` fits."""

    name: str
    tiers: tuple[str, ...]
    weights: Singles
    """[inputs, 2T]: of the logits of P(right), then of the logarithms of E[tokens]."""
    bias: Singles
    """[2T]"""
    low: Singles
    """Fewest tokens seen in training, [T]."""
    high: Singles
    """Most tokens seen in training, [T]."""
    spread: Singles
    """95th percentile over mean of the tokens, [T]."""
    shrink: float
    """In [0, 1]: how much of the predicted differences between tiers held on prompts not trained on."""
    offset: Singles
    """The tiers' mean differences, [T], which replace the part that did not hold."""
    average: Singles
    """Mean P(right) of the training prompts, [T]."""
    by_length: Singles
    """ln E[tokens] from the length of a prompt alone: intercepts, then slopes on the first count, [2, T]."""
    lengths: Mapping[str, float] = field(default_factory=dict)
    """Reasoning tokens of some tiers, rising. With them, other tiers of the model can be interpolated."""

    def outcomes(self, inputs: Singles, unknown: Singles | float = 0.0) -> tuple[Floats, Floats]:
        """P(right) and E[tokens] for inputs [..., inputs], each [..., T].

        unknown: in [0, 1], how far each prompt is outside of what the trunk knows, [...]. The length alone
        predicts the tokens of an unknown prompt, and P(right) stays near the average.
        """
        raw = inputs @ self.weights + self.bias
        count = len(self.tiers)
        correct = 1 / (1 + np.exp(-np.minimum(np.maximum(raw[..., :count], -30), 30)))  # np.clip is slower
        if self.shrink < 1:
            centre = correct.mean(axis=-1, keepdims=True)
            gain = self.shrink * (correct - centre) + (1 - self.shrink) * self.offset
            correct = np.minimum(np.maximum(centre + gain, 0), 1)
        logs = raw[..., count:]
        if isinstance(unknown, np.ndarray) or unknown > 0:
            share = np.asarray(unknown, np.float32)[..., None]
            correct = correct + share * (1 - BELIEVED) * (self.average - correct)
            logs = logs + share * (self.by_length[0] + inputs[..., -DENSE, None] * self.by_length[1] - logs)
        tokens = np.minimum(np.maximum(np.exp(np.minimum(logs, 20)), self.low), self.high)
        return correct.astype(np.float64), tokens.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Trunk:
    """Turns a prompt's features into the inputs of the curves; shared by all models."""

    rarity: Singles
    """Inverse document frequency, 0 for n-grams never seen, [SIZE]."""
    mean: Singles
    """Of the counts, [DENSE]."""
    scale: Singles
    """Standard deviation of the counts, [DENSE]."""
    latents: Singles
    """The linear map from n-grams to the latent difficulties z, [SIZE, R]."""
    counts: Singles
    """The linear map from counts to z, [DENSE, R]."""
    shift: Singles
    """The intercept of z, [R]."""
    hidden: Singles
    """Weights of the tanh layer above z and the counts, [R + DENSE, H]."""
    hidden_bias: Singles
    """[H]"""
    strange: float
    """Mean rarity, or share outside of the plane, above which a prompt counts as unlike the training data."""
    plane: Singles | None = None
    """The leading directions of the training data, [K, SIZE], if the features are an embedding."""
    examples: Singles = field(default_factory=lambda: np.zeros((0, DENSE), np.float32))
    """Standardised counts of some training prompts, [M, DENSE]."""
    squares: Singles = field(default_factory=lambda: np.zeros(0, np.float32))
    """Squared length of each example, [M]: with these a distance is one matrix product."""
    reach: float = math.inf
    """Distance to the nearest example above which a prompt counts as unlike the training data."""

    def see(self, features: Features) -> tuple[Singles, float]:
        """The inputs [H + R + DENSE], and how unknown the prompt is: 0 to 1, see `unknown_share`."""
        seen = self.rarity.take(features.indices)  # half the time of indexing
        values = features.values * seen
        length = math.sqrt(float(values @ values)) or 1.0
        counts = standardised(features.dense, self.mean, self.scale)
        latents = (
            (values / length) @ self.latents.take(features.indices, 0) + counts @ self.counts + self.shift
        )
        strangeness = (rarity(seen) if self.plane is None else outside(values, self.plane)) / self.strange
        if len(self.examples):
            strangeness = max(strangeness, distance(counts, self.examples, self.squares) / self.reach)
        return self.above(np.concatenate((latents, counts))), unknown_share(strangeness)

    def above(self, inputs: Singles) -> Singles:
        """Prepend the hidden layer to z and the counts: [..., R + DENSE] -> [..., H + R + DENSE]."""
        return np.concatenate((np.tanh(inputs @ self.hidden + self.hidden_bias), inputs), axis=-1)


def unknown_share(strangeness: float) -> float:
    """0 up to the threshold of strangeness, which is 1, rising to 1 at half beyond it."""
    return min(max((strangeness - 1) / RAMP, 0.0), 1.0)


def distance(counts: Singles, examples: Singles, squares: Singles) -> float:
    """Euclidean distance from counts [DENSE] to the nearest of the examples [M, DENSE]."""
    nearest = float((squares - examples @ (2 * counts)).min()) + float(counts @ counts)
    return math.sqrt(max(nearest, 0.0))


def squared(examples: Singles) -> Singles:
    """Squared length of each row, [M]."""
    lengths: Singles = (examples**2).sum(axis=1)
    return lengths


def rarity(seen: Singles) -> float:
    """Mean inverse document frequency of a prompt's n-grams; unseen ones count as `artifact.UNSEEN`."""
    if not len(seen):
        return math.inf
    return float(seen.sum() + artifact.UNSEEN * (len(seen) - np.count_nonzero(seen))) / len(seen)


def outside(vector: Singles, plane: Singles) -> float:
    """Share of a unit vector's square outside of orthonormal directions [K, D], from 0 to 1.

    This is the residual of ViM (Wang et al., CVPR 2022).
    """
    inside = plane @ vector
    return 1 - float(inside @ inside)


class Between(NamedTuple):
    """Where rungs lie between the measured tiers around them."""

    above: NDArray[np.intp]
    """The measured tier at or above each rung, [asked]."""
    gained: Floats
    """The share of the way that P(right) has gone from the tier below to the one above, [asked]."""
    spent: Floats
    """The share of the way that ln E[tokens] has gone, [asked]."""


@dataclass(frozen=True, slots=True)
class TierMapping:
    """How a model's rungs are read off a set of curves; made once per model and ladder."""

    curves: Curves
    columns: NDArray[np.intp]
    """The measured tiers that are used; with `between`, the one at or below each rung."""
    blend: Floats | None
    """Interpolation between them, [asked, columns]; None if they are not interpolated by length."""
    limit: Floats
    """Completion tokens that each rung may write, [asked]."""
    spread: Floats
    """95th percentile over mean of the tokens, [asked]."""
    between: Between | None = None
    """Interpolation between known tiers; None if every rung is a measured tier, or for `blend`."""

    def outcomes(self, inputs: Singles, unknown: Singles | float = 0.0) -> tuple[Floats, Floats]:
        """P(right) and E[tokens] for inputs [..., inputs], each [..., asked]; see `Curves.outcomes`."""
        right, used = self.curves.outcomes(inputs, unknown)
        correct, tokens = right.take(self.columns, -1), used.take(self.columns, -1)
        if self.between is not None:
            above, gained, spent = self.between
            # both are exact at a share of 0, and equal estimates stay equal
            correct = correct + gained * (right.take(above, -1) - correct)
            tokens = tokens * (used.take(above, -1) / tokens) ** spent
        if self.blend is not None:
            rising, longer = np.maximum.accumulate(correct, -1), np.maximum.accumulate(tokens, -1)
            # rounded, so that equal estimates stay equal
            correct = np.minimum(np.round(rising @ self.blend.T, 9), 1.0)
            tokens = np.round(np.exp(np.log(longer) @ self.blend.T), 6)
        return correct, np.minimum(tokens, self.limit)


def map_tiers(curves: Curves, columns: list[int] | None, tiers: Sequence[TierLength]) -> TierMapping:
    """The mapping for a ladder whose tiers are known by name, or interpolated between the measured ones.

    columns: the measured tiers of the named ones in `tiers`; None if not all are known. Known tiers keep
    their estimates, and the rungs between them are interpolated: P(right) is linear in the `gain_position`,
    and ln E[tokens] in ln(1 + reasoning tokens). Tiers that are not known are interpolated by length, and
    never fall.
    Nothing was measured beyond the longest tier, so there the curves continue at half the slope of the last
    interval, for at most two octaves. Tokens never exceed what a rung may write.
    """
    limit = np.array([max(tier.thinking + tier.answer, 1) for tier in tiers], float)
    if columns is not None:
        return _between_known(curves, columns, tiers, limit)
    known = [curves.tiers.index(tier) for tier in curves.lengths]
    measured = np.log1p(list(curves.lengths.values()))
    wanted = np.log1p([max(tier.thinking, 0) for tier in tiers])
    blend = np.stack([np.interp(wanted, measured, unit) for unit in np.eye(len(measured))], axis=1)
    spread: Floats = blend @ curves.spread[known].astype(float)
    beyond = (
        np.clip(wanted - measured[-1], 0, _OCTAVES * math.log(2)) / 2 / max(measured[-1] - measured[-2], 1e-9)
    )
    blend[:, -1] += beyond
    blend[:, -2] -= beyond
    return TierMapping(curves, np.array(known), blend, limit, spread)


def _between_known(
    curves: Curves, columns: list[int], tiers: Sequence[TierLength], limit: Floats
) -> TierMapping:
    """The mapping for a ladder whose named tiers are the columns.

    Other measured tiers are used too, if the curves have lengths in which the named tiers have exactly the
    thinking tokens of the ladder.
    """
    if len(columns) == len(tiers):
        return TierMapping(curves, np.array(columns), None, limit, curves.spread[columns].astype(float))
    named = {tier.name: tier.thinking for tier in tiers if tier.name is not None}
    points = [(float(thinking), column) for thinking, column in zip(named.values(), columns, strict=True)]
    if all(curves.lengths.get(name) == thinking for name, thinking in named.items()):
        points += [
            (thinking, curves.tiers.index(name))
            for name, thinking in curves.lengths.items()
            if name not in named
        ]
    points.sort(key=lambda point: point[0])
    at, asked = [thinking for thinking, _ in points], [float(tier.thinking) for tier in tiers]
    column = np.array([column for _, column in points])
    upper = np.clip(np.searchsorted(at, asked), 1, len(at) - 1)
    below, above = column[upper - 1], column[upper]
    known = [index for index, tier in enumerate(tiers) if tier.name is not None]
    below[known] = above[known] = columns

    def share(positions: Floats, wanted: Floats) -> Floats:
        """How far each rung lies from the point below it to the one above."""
        low, high = positions[upper - 1], positions[upper]
        found: Floats = np.clip((wanted - low) / np.maximum(high - low, 1e-9), 0, 1)
        found[known] = 0
        return found

    shortest = shortest_thinking(at)
    gained = share(gain_position(np.array(at), shortest), gain_position(np.array(asked), shortest))
    spent = share(np.log1p(at), np.log1p(asked))
    spread = curves.spread.astype(float)
    spread = spread[below] + spent * (spread[above] - spread[below])
    return TierMapping(curves, below, None, limit, spread, Between(above, gained, spent))
