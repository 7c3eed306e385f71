"""Exploration: sometimes draws a random tier, and says how probable the granted tier was. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Draw(NamedTuple):
    """The result of a random draw of a tier."""

    tier: int
    """Position of the drawn tier."""
    probabilities: dict[int, float]
    """How likely each eligible tier was to be drawn, by position."""


def explore(best: int, eligible: Sequence[int], epsilon: float, uniform: float) -> Draw:
    """Draw any eligible tier with probability ε, all equally likely; otherwise take the best one.

    uniform: a random number in [0, 1). Use ε = 0 while a budget is tight.
    """
    share = epsilon / len(eligible)
    probabilities = {k: share + (1 - epsilon if k == best else 0.0) for k in eligible}
    if uniform < epsilon:
        return Draw(eligible[min(int(uniform / share), len(eligible) - 1)], probabilities)
    return Draw(best, probabilities)


def propensity(draw: Draw, granted: int, fits: Iterable[int]) -> float:
    """The probability that this tier is granted, limiter included; 0 if that is impossible.

    fits: the tiers for which the budgets had room. The limiter grants the highest of them at or below the
    drawn tier, so several draws can lead to one tier. For example, with room for tiers 0 and 1, draws of 1
    and 2 both lead to tier 1.
    """
    room = sorted(fits)
    return math.fsum(
        probability
        for drawn, probability in draw.probabilities.items()
        if max((k for k in room if k <= drawn), default=None) == granted
    )
