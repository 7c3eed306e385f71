"""The score of adaptive routing beside every fixed tier and the best fixed mix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.demo.score import mix_at, scores

points = st.lists(
    st.tuples(st.floats(1, 1_000), st.floats(0, 1)), min_size=1, max_size=5, unique_by=lambda p: p[0]
)


@given(points, st.floats(1, 2_000))
def test_a_mix_is_no_worse_than_any_tier_it_can_afford(
    tiers: list[tuple[float, float]], budget: float
) -> None:
    """Nor better than the best tier there is."""
    tokens, rights = zip(*tiers, strict=True)
    mix = mix_at(rights, tokens, budget)

    assert mix <= max(rights) + 1e-12
    assert all(mix >= right for used, right in tiers if used <= budget)


def test_a_mix_lies_on_the_line_between_two_tiers() -> None:
    """Half of the questions at 10 tokens and half at 30 cost 20; their accuracy is the mean of both."""
    assert mix_at([0.2, 0.3, 0.8], [10, 20, 30], 20) == pytest.approx(0.5)
    assert mix_at([0.2, 0.3, 0.8], [10, 20, 30], 5) == 0.2
    assert mix_at([0.2, 0.9, 0.8], [10, 20, 30], 30) == 0.9


def test_choosing_well_beats_the_mix() -> None:
    """Thinking on exactly the questions that need it gains over any mix, beyond the interval."""
    easy = np.arange(400) % 2 == 0
    short = (easy.astype(float), np.full(400, 10.0))
    long = (np.ones(400), np.full(400, 50.0))
    adaptive = (np.ones(400), np.where(easy, 10.0, 50.0))

    rows, gain = scores(adaptive, {"short": short, "long": long})
    named = {row.name: row for row in rows}

    assert [row.name for row in rows] == ["adaptive", "short", "long", "best fixed mix"]
    assert named["best fixed mix"].accuracy == pytest.approx(0.75)
    assert (named["adaptive"].accuracy, named["adaptive"].tokens) == (1.0, 30.0)
    assert gain.gain == pytest.approx(0.25)
    assert 0.2 < gain.low <= gain.high <= 0.25 + 1e-9  # share × (1 − share) of the hard questions


def test_choosing_by_lot_gains_nothing() -> None:
    """A choice that ignores the question is a mix, so the interval of its gain includes zero."""
    rng = np.random.default_rng(3)
    easy, coin = rng.random(2_000) < 0.5, rng.random(2_000) < 0.5
    short = (easy.astype(float), np.full(2_000, 10.0))
    long = (np.ones(2_000), np.full(2_000, 50.0))
    adaptive = (np.where(coin, long[0], short[0]), np.where(coin, 50.0, 10.0))

    _, gain = scores(adaptive, {"short": short, "long": long})

    assert gain.low < 0 < gain.high
