"""Shares and means with intervals, and how many prompts a difference needs. No I/O.

Prompts are drawn; samples of one prompt are alike. So every interval counts prompts, not samples.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from router_model.arrays import Floats

_SURE = 0.95
_Z = NormalDist().inv_cdf((1 + _SURE) / 2)


class Estimate(NamedTuple):
    """A mean over so many prompts, with its 95 % interval."""

    mean: float
    low: float
    high: float
    prompts: int


def share(values: Floats, most: int = 1) -> Estimate:
    """The mean of scores in [0, 1], one per prompt, with Wilson's interval.

    A score that is a mean of several samples varies less than one sample, so such prompts count for more: as
    many as single answers of the same variance would (Korn and Graubard, 1998), up to `most` samples each.
    """
    count = len(values)
    if not count:
        return Estimate(math.nan, 0.0, 1.0, 0)
    mean = min(max(float(values.mean()), 0.0), 1.0)
    spread = float(values.var(ddof=1)) if count > 1 else 0.0
    worth = mean * (1 - mean) * count / spread if spread > 0 else float(count)
    n = min(max(worth, count), count * most)
    return Estimate(mean, *wilson(mean, n), count)


def wilson(mean: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share. n: how many single answers it rests on, above 0."""
    centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n * n))
    return max(min(centre - half, mean), 0.0), min(max(centre + half, mean), 1.0)


def newcombe(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float, float]:
    """`first` − `second` of two independent shares, each (mean, low, high), by Newcombe (1998, method 10)."""
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    return a - b, a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def average(values: Floats) -> Estimate:
    """The mean of any numbers, one per prompt, with the normal interval."""
    count = len(values)
    if not count:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(values.mean())
    half = _Z * float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return Estimate(mean, mean - half, mean + half, count)


def paired(first: Floats, second: Floats) -> Estimate:
    """The mean of `first` − `second`, scores in [0, 1] of the same prompts.

    The interval counts two prompts more, one that only the first gets right and one that only the second does
    (Bonett and Price, 2012). So it has a width even if all prompts agree.
    """
    difference = first - second
    if not len(difference):
        return Estimate(math.nan, -1.0, 1.0, 0)
    more = np.append(difference, [1.0, -1.0])
    centre, half = float(more.mean()), _Z * float(more.std()) / math.sqrt(len(more))
    mean = float(difference.mean())
    return Estimate(
        mean, max(min(centre - half, mean), -1.0), min(max(centre + half, mean), 1.0), len(difference)
    )


def prompts_needed(difference: float, first: Floats, second: Floats, power: float = 0.8) -> int | None:
    """How many prompts show a difference in the share of right answers, in 80 % of all trials at 5 % error.

    The usual formula for means of paired data, n = (z_0.975 + z_0.8)² s² / d², with the variance s² of the
    difference between two rungs as measured. For single answers it is that of Connor (1987) for McNemar's
    test, but for the difference itself, which is small. None if two prompts have not been measured.
    """
    if len(first) < 2:
        return None
    more = np.append(first - second, [1.0, -1.0])
    z = _Z + NormalDist().inv_cdf(power)
    return math.ceil(z**2 * float(more.var()) / difference**2)
