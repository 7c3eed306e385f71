"""Places further thinking budgets between the named tiers of a model. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gateway.config.models import Tier

_SHORTEST = 1 / 4
"""Rungs below the shortest thinking tier reach down to this share of its thinking tokens."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One point on a model's ladder of thinking budgets: a named tier, or a budget between two of them."""

    thinking: int
    """Reasoning tokens; 0 switches reasoning off."""
    answer: int | None
    """Completion tokens in addition to the reasoning; None for no limit."""
    tier: int
    """Position of the named tier at or below it, by whose name it goes."""
    sent_as: int
    """Position of the named tier at or above it, whose fields a request gets, with fewer thinking tokens."""

    @property
    def named(self) -> bool:
        return self.tier == self.sent_as


def build_rungs(tiers: Sequence[Tier], count: int) -> tuple[Rung, ...]:
    """The named tiers, shortest first, with points between them so that the ladder has `count` rungs.

    The points between two tiers are geometric. Each further point goes where the steps in ln(thinking) are
    widest, as far as whole numbers allow. Below the shortest thinking tier, the points lie between a quarter
    of its tokens and itself. For example, tiers of 0, 1024 and 4096 tokens with 9 rungs become 0, 362, 512,
    724, 1024, 1448, 2048, 2896, 4096.
    """
    gaps = list(pairwise(tiers))
    points: list[list[int]] = [[] for _ in gaps]
    open_gaps = set(range(len(gaps)))
    left = count - len(tiers)
    while left > 0 and open_gaps:
        widest = max(sorted(open_gaps), key=lambda gap: _span(*gaps[gap]) / (len(points[gap]) + 1))
        finer = _points(*gaps[widest], len(points[widest]) + 1)
        if finer:
            points[widest] = finer
            left -= 1
        else:
            open_gaps.remove(widest)
    rungs = [Rung(tier.thinking, tier.answer, k, k) for k, tier in enumerate(tiers)]
    rungs += [
        Rung(thinking, _answer(*gaps[gap], thinking), gap, gap + 1)
        for gap, between in enumerate(points)
        for thinking in between
    ]
    return tuple(sorted(rungs, key=lambda rung: (rung.tier, rung.thinking)))


def _start(low: Tier, high: Tier) -> float:
    return low.thinking or high.thinking * _SHORTEST


def _span(low: Tier, high: Tier) -> float:
    """The distance between two tiers in ln(thinking)."""
    return math.log(high.thinking / _start(low, high)) if high.thinking else 0.0


def _points(low: Tier, high: Tier, count: int) -> list[int]:
    """`count` different whole numbers between two tiers, in even steps of ln(thinking); none if too close."""
    if not high.thinking:
        return []
    start = _start(low, high)
    step = (high.thinking / start) ** (1 / (count + 1))
    points = [round(start * step**k) for k in range(1, count + 1)]
    rising = all(one < other for one, other in pairwise([low.thinking, *points, high.thinking]))
    return points if rising else []


def _answer(low: Tier, high: Tier, thinking: int) -> int | None:
    """The room for the answer between two tiers, linear in ln(1 + thinking)."""
    if low.answer is None or high.answer is None:
        return None
    floor = math.log1p(low.thinking)
    share = (math.log1p(thinking) - floor) / (math.log1p(high.thinking) - floor)
    return round(low.answer + share * (high.answer - low.answer))
