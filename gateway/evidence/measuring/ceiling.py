"""What a router could gain at most: the best rung of each prompt, as if it were known. No I/O.

Whoever picks the best of a few noisy numbers picks luck too. With one sample of each answer, the best rung of
a prompt is the one that was lucky, and the ceiling is too high. With several, one of them is left out in
turn: the others choose, and the one left out counts. That is too low, since fewer samples choose worse. The
truth lies between the two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from router_model.allocation import best_tiers, hull
from router_model.arrays import Floats

_PRICES = np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 141)])  # per 1,000 tokens


class CurvePoint(NamedTuple):
    """Mean tokens, and the share of right answers."""

    tokens: float
    accuracy: float


class Ceiling(NamedTuple):
    """What is possible at equal tokens."""

    fixed: tuple[CurvePoint, ...]
    """The best mixture of fixed rungs, cheapest first."""
    highest: tuple[CurvePoint, ...]
    """The best rung of every prompt, luck included."""
    lowest: tuple[CurvePoint, ...]
    """The same, chosen without the sample that counts; empty with one sample."""


def ceiling_of(correct: Floats, tokens: Floats) -> Ceiling:
    """What a perfect choice could gain.

    correct, tokens: scores and completion tokens, [prompts, rungs, samples], all known.
    """
    means = correct.mean(axis=2), tokens.mean(axis=2)
    points = [CurvePoint(float(t), float(c)) for c, t in zip(means[0].mean(0), means[1].mean(0), strict=True)]
    samples = correct.shape[2]
    lowest: tuple[CurvePoint, ...] = ()
    if samples > 1:
        curves = []
        for at in range(samples):
            others = [(each.sum(axis=2) - each[:, :, at]) / (samples - 1) for each in (correct, tokens)]
            curves.append(_choices(others[0], others[1], correct[:, :, at], tokens[:, :, at]))
        mean = np.mean(curves, axis=0).tolist()
        lowest = mixtures([CurvePoint(*each) for each in mean] + points)
    best = [CurvePoint(float(t), float(c)) for t, c in _choices(*means, *means)]
    return Ceiling(mixtures(points), mixtures(best), lowest)


def _choices(correct: Floats, tokens: Floats, counted: Floats, spent: Floats) -> Floats:
    """(tokens, accuracy) at every price if the first two choose and the others count, [prices, 2]."""
    rows = np.arange(len(correct))
    found = []
    for price in _PRICES.tolist():
        chosen = best_tiers(correct, tokens, price)
        found.append((float(spent[rows, chosen].mean()), float(counted[rows, chosen].mean())))
    return np.array(found)


def mixtures(points: list[CurvePoint]) -> tuple[CurvePoint, ...]:
    """The upper hull: what mixtures of these points reach, cheapest first."""
    tokens, correct = [each.tokens for each in points], [each.accuracy for each in points]
    return tuple(points[at] for at in hull(correct, tokens))


def height(curve: tuple[CurvePoint, ...], tokens: float) -> float:
    """The share of right answers of a curve at these tokens. Tokens beyond its end stay unused."""
    return float(np.interp(tokens, [each.tokens for each in curve], [each.accuracy for each in curve]))


def cheapest(curve: tuple[CurvePoint, ...], accuracy: float) -> float | None:
    """The fewest tokens at which a curve reaches a share of right answers; None if it never does."""
    if not curve or curve[-1].accuracy < accuracy - 1e-12:
        return None
    rising = [each.accuracy for each in curve]
    return float(np.interp(accuracy, rising, [each.tokens for each in curve]))
