"""Exploration: now and then a random tier, and the probability of what was granted. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Draw(NamedTuple):
    """A random choice of a tier, by position."""

    tier: int
    probabilities: dict[int, float]
    """The probability of each eligible tier to be drawn."""


def explore(best: int, eligible: Sequence[int], epsilon: float, uniform: float) -> Draw:
    """With probability ε any eligible tier, all equally likely; otherwise the best one.

    uniform: a random number in [0, 1). Use ε = 0 while the limiter acts: a tight window is no place for
    experiments.
    """
    share = epsilon / len(eligible)
    probabilities = {k: share + (1 - epsilon if k == best else 0.0) for k in eligible}
    if uniform < epsilon:
        return Draw(eligible[min(int(uniform / share), len(eligible) - 1)], probabilities)
    return Draw(best, probabilities)


def propensity(draw: Draw, granted: int, fits: Iterable[int]) -> float:
    """The probability that this tier was granted, limiter included; 0 if that was impossible.

    fits: the eligible tiers for which the window had room at that moment. The limiter grants the highest of
    them at or below the drawn one, so several draws may lead to one tier. For example, with room for tiers
    0 and 1, draws of 1 and 2 both lead to tier 1.
    """
    room = sorted(fits)
    return math.fsum(
        probability
        for drawn, probability in draw.probabilities.items()
        if max((k for k in room if k <= drawn), default=None) == granted
    )
