"""Compares adaptive with every fixed tier and the best fixed mix, on the same questions. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Score:
    """Score of one method: share of right answers with its 95 % interval, and mean completion tokens."""

    name: str
    accuracy: float
    low: float
    high: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Gain:
    """Adaptive minus the best fixed mix at the same tokens, in share of right answers, with its interval."""

    gain: float
    low: float
    high: float


def mix_at(accuracies: Sequence[float], tokens: Sequence[float], budget: float) -> float:
    """Share of right answers of the best mix of fixed tiers at `budget` mean tokens per question.

    A mix draws the tier of each question at random, so it reaches any point between two tiers. The best mix
    lies on the upper hull of the tiers' (tokens, accuracy) points, at the budget or below it. A budget below
    the cheapest tier gets that tier's accuracy, because no mix uses less.
    """
    points = list(zip(tokens, accuracies, strict=True))
    best = max(a for t, a in points if t <= max(budget, min(tokens)))
    for t0, a0 in points:
        for t1, a1 in points:
            if t0 <= budget < t1:
                best = max(best, a0 + (a1 - a0) * (budget - t0) / (t1 - t0))
    return best


def _bounds(samples: Floats) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def scores(
    adaptive: tuple[Floats, Floats], fixed: Mapping[str, tuple[Floats, Floats]], seed: int = 0
) -> tuple[list[Score], Gain]:
    """Scores of all methods, and the gain. Per method: right [N] in 0..1, tokens [N], of the same questions.

    Intervals are percentiles over resampled questions; each resample recomputes every mean and the mix, so
    the comparison stays paired.
    """
    ways = {"adaptive": adaptive, **fixed}
    right = np.stack([pair[0] for pair in ways.values()])
    spent = np.stack([pair[1] for pair in ways.values()])
    count = right.shape[1]
    # count of each question in each resample: [RESAMPLES, N]
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    sampled_right, sampled_spent = right @ draws.T, spent @ draws.T
    rows = [
        Score(name, float(right[i].mean()), *_bounds(sampled_right[i]), float(spent[i].mean()))
        for i, name in enumerate(ways)
    ]
    mixes = np.array(
        [
            mix_at(accuracies, tokens, budget)
            for accuracies, tokens, budget in zip(
                sampled_right[1:].T.tolist(),
                sampled_spent[1:].T.tolist(),
                sampled_spent[0].tolist(),
                strict=True,
            )
        ]
    )
    mix = mix_at([row.accuracy for row in rows[1:]], [row.tokens for row in rows[1:]], rows[0].tokens)
    rows.append(Score("best fixed mix", mix, *_bounds(mixes), rows[0].tokens))
    return rows, Gain(rows[0].accuracy - mix, *_bounds(sampled_right[0] - mixes))
