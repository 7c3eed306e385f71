"""Tests by betting: the capital is fair where the hypothesis holds, and grows where it does not."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evidence.drift.betting import Aim, Bets

AIMS = [Aim(0.08, 0.7), Aim(0.18, 0.3)]
unit = st.floats(0, 1)


def bets(highest: float = 1.02) -> Bets:
    return Bets.against(AIMS, highest, 0.35)


@settings(max_examples=30)
@given(st.lists(st.tuples(unit, unit), max_size=40))
def test_capital_stays_above_zero(answers: list[tuple[float, float]]) -> None:
    """No answer takes all, whatever was promised and came."""
    made = bets()
    for n, (score, promised) in enumerate(answers):
        if n % 7 == 6:
            made.renew(1 / 13)
        made.see(score - promised + 0.02)

    assert made.capital > 0


@settings(max_examples=20)
@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=6))
def test_capital_is_fair(promises: list[float]) -> None:
    """Where answers are right as often as the hypothesis allows at worst, the capital is 1 on average.

    All sequences of answers are added up, each with its probability, with fresh bets on the way.
    """
    total = 0.0
    for answers in itertools.product((0, 1), repeat=len(promises)):
        made, chance = bets(), 1.0
        for n, (right, promised) in enumerate(zip(answers, promises, strict=True)):
            least = max(0.0, promised - 0.02)
            chance *= least if right else 1 - least
            if n == 2:
                made.renew(1 / 13)
            made.see(right - least)
        total += chance * made.capital

    assert total == pytest.approx(1)


def test_fall_is_found() -> None:
    """A fall of ten points makes the capital grow, and fresh bets find it after a long good time too."""
    draw = random.Random(3)
    early, late = bets(), bets()
    for n in range(3_000):
        if n % 50 == 0:
            late.renew(1 / 13)
        late.see((draw.random() < 0.9) - 0.9 + 0.02)
    good = late.capital
    for n in range(400):
        if n % 50 == 0:
            late.renew(1 / 13)
        for made in (early, late):
            made.see((draw.random() < 0.8) - 0.9 + 0.02)

    assert good < 1
    assert early.capital > 20
    assert late.capital > 20
