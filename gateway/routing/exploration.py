"""Exploration: sometimes draws a random rung, and says how probable the granted rung was. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Draw(NamedTuple):
    """The result of a random draw of a rung."""

    rung: int
    """Position of the drawn rung."""
    probabilities: dict[int, float]
    """How likely each eligible rung was to be drawn, by position."""


def explore(best: int, eligible: Sequence[int], epsilon: float, uniform: float) -> Draw:
    """Draw any eligible rung with probability ε, all equally likely; otherwise take the best one.

    uniform: a random number in [0, 1). Use ε = 0 while a budget is tight.
    """
    share = epsilon / len(eligible)
    probabilities = {k: share + (1 - epsilon if k == best else 0.0) for k in eligible}
    if uniform < epsilon:
        return Draw(eligible[min(int(uniform / share), len(eligible) - 1)], probabilities)
    return Draw(best, probabilities)


def propensity(draw: Draw, granted: int | None, grant: Callable[[int], int | None]) -> float:
    """The probability that this rung is granted, limiter included; 0 if that is impossible.

    grant: what the limiter makes of a drawn rung; None if it cuts the cheapest one. Several draws can lead to
    one rung. For example, with room for rungs 0 and 1, draws of 1 and 2 both lead to rung 1.
    """
    return math.fsum(share for drawn, share in draw.probabilities.items() if grant(drawn) == granted)
