"""How often a judge's verdict followed the position of an answer, not the answer. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from gateway.evidence.grading.verdict import compared
from gateway.evidence.measuring.intervals import Estimate, share
from gateway.evidence.measuring.journal import GivenGrade


class PositionBias(Struct, frozen=True):
    """What became of the pairs that a judge saw in both orders."""

    flipped: Estimate
    """Share of the pairs in which the same position was preferred both times, so not the same answer."""
    pairs: int
    first: int
    """Pairs in which the answer that was shown first was preferred both times."""
    second: int


def position_bias(grades: Iterable[GivenGrade]) -> PositionBias | None:
    """The bias over all grades with two verdicts; None without any.

    The pairs of one prompt are alike, so the interval counts prompts.
    """
    flips: dict[str, list[bool]] = defaultdict(list)
    first = second = 0
    for grade in grades:
        if grade.verdicts is not None:
            flips[grade.prompt].append(bool(compared(*grade.verdicts).flipped))
            first += grade.verdicts == ("1", "1")
            second += grade.verdicts == ("2", "2")
    if not flips:
        return None
    most = max(map(len, flips.values()))
    shares = np.array([np.mean(each) for each in flips.values()])
    return PositionBias(share(shares, most), sum(map(len, flips.values())), first, second)
