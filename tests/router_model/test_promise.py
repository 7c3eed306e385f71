"""The promise of quality: what certifies a price, and what does not."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_model.arrays import Floats
from router_model.promise import (
    STEPS,
    ComparedRungs,
    PromiseTerms,
    certify_price,
    evidence_over_time,
    losses_at,
    price_grid,
)

TERMS = PromiseTerms(0.02, 0.95)
LONG = 2
CORRECT = np.array([0.50, 0.60, 0.65])
TOKENS = np.array([100.0, 1_000.0, 3_000.0])
# long below 0.025, then the middle one up to 0.111, then the short one


def pairs_of(seen: int, loss: Floats, *drawn: float) -> ComparedRungs:
    """Pairs of the same prompt, at one rung beside the longest."""
    count = len(loss)
    return ComparedRungs(
        correct=np.tile(CORRECT, (count, 1)),
        tokens=np.tile(TOKENS, (count, 1)),
        eligible=np.ones((count, 3)),
        against=np.full(count, LONG),
        seen=np.full(count, seen),
        drawn_from=np.tile(drawn, (count, 1)),
        loss=loss,
    )


@settings(max_examples=20)
@given(st.floats(1e-4, 10))
def test_grid_ends_at_the_price(price: float) -> None:
    """It rises in steps of two."""
    grid = price_grid(price)

    assert len(grid) == STEPS
    assert grid[-1] == price
    assert all(high == pytest.approx(2 * low) for low, high in pairwise(grid))


def test_a_price_of_zero_is_one_price() -> None:
    """There is none below."""
    assert price_grid(0) == (0.0,)


@pytest.mark.parametrize(
    ("price", "seen", "drawn", "expected"),
    [
        (0.05, 1, (0.05, 0.05), 0.5),  # the rung could only be this one
        (0.05, 1, (0.05, 0.2), 1.0),  # drawn with probability one half
        (0.05, 0, (0.05, 0.2), 0.0),  # the other one was drawn
        (0.05, 1, (0.01, 0.05), 0.5),  # a price that gives `against` is never drawn
        (0.01, 1, (0.05, 0.05), 0.0),  # the policy gives `against`, which loses nothing
        (0.2, 1, (0.05, 0.05), 1.0),  # could not be drawn: all is lost
    ],
)
def test_loss(price: float, seen: int, drawn: tuple[float, ...], expected: float) -> None:
    """Of one pair that loses one half."""
    assert losses_at(pairs_of(seen, np.array([0.5]), *drawn), price).tolist() == [expected]


def test_bounds_hold_for_every_price() -> None:
    """A rung that the request could not have got is not chosen."""
    pairs = pairs_of(1, np.array([0.5]), 0.2)._replace(eligible=np.array([[0.0, 1.0, 1.0]]))

    assert losses_at(pairs, 0.2).tolist() == [0.5]


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_losses_are_unbiased_over_the_draw(seed: int) -> None:
    """Averaged over the rungs that could have been drawn, the loss is that of the price's rung."""
    draw = np.random.default_rng(seed)
    grid = price_grid(draw.uniform(0.03, 0.3))
    loss_of = draw.uniform(-1, 1, 2)
    single = pairs_of(0, np.zeros(1), *grid)
    at = {p: (np.where(single.eligible, CORRECT - p * TOKENS / 1000, -1)).argmax() for p in grid}
    open_to = [int(at[p]) for p in grid if at[p] != LONG]

    for price in grid:
        mean = np.mean([losses_at(pairs_of(r, loss_of[[r]], *grid), price)[0] for r in open_to])
        assert mean == pytest.approx(0 if at[price] == LONG else loss_of[at[price]])


@settings(max_examples=25)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(0, 0.2), st.integers(1, 4))
def test_capital_is_never_negative(losses: list[float], most: float, bound: int) -> None:
    """Whatever was lost, there is a logarithm of what is left."""
    assert np.isfinite(evidence_over_time(np.array(losses) * bound, most, bound)).all()


@settings(max_examples=25)
@given(st.floats(0.001, 0.1), st.floats(0.0, 1.0))
def test_capital_does_not_grow_at_the_limit(most: float, spread: float) -> None:
    """Where exactly as much is lost as is promised, the expected capital after one pair is 1."""
    gain = most - spread * (most + 1)
    share = (most - gain) / (1 - gain)  # of losses of 1, else of `gain`
    after = [math.exp(evidence_over_time(np.array([loss]), most, 1.0)[0]) for loss in (1.0, gain)]

    assert share * after[0] + (1 - share) * after[1] == pytest.approx(1.0)


def test_certifies_what_loses_nothing() -> None:
    """With enough pairs, of which one in twenty differs by chance."""
    losses = np.tile([1.0, -1.0, *[0.0] * 38], 100)

    found = certify_price(pairs_of(1, losses, 0.05), (0.05,), TERMS)

    assert found.price == 0.05
    assert found.tested[0].missing == 0
    assert found.tested[0].loss == pytest.approx(0.0)


def test_does_not_certify_what_loses_too_much() -> None:
    """Nor says that more pairs would help."""
    losses = np.tile([1.0, *[0.0] * 19], 200)

    found = certify_price(pairs_of(1, losses, 0.05), (0.05,), TERMS)

    assert found.price is None
    assert found.tested[0].loss == pytest.approx(0.05)
    assert found.tested[0].missing is None


def test_stops_at_the_first_failure() -> None:
    """A price after it is not tested, and the largest before it counts."""
    losses = np.zeros(2_000)

    found = certify_price(pairs_of(1, losses, 0.05), (0.03, 0.05, 0.2, 0.01), TERMS)

    assert found.price == 0.05
    assert [one.price for one in found.tested] == [0.03, 0.05, 0.2]


def test_missing_pairs_are_about_right() -> None:
    """After a third of the pairs, the estimate is within half of what it took in the end."""
    losses = np.tile([1.0, -1.0, *[0.0] * 38], 100)
    needed = int((evidence_over_time(losses, 0.02, 1.0) >= TERMS.needed).argmax()) + 1
    third = needed // 3

    missing = certify_price(pairs_of(1, losses[:third], 0.05), (0.05,), TERMS).tested[0].missing

    assert missing is not None
    assert 0.5 * (needed - third) < missing < 1.5 * (needed - third)


def test_nothing_seen_is_nothing_certified() -> None:
    """It takes some hundreds to thousands of pairs."""
    found = certify_price(pairs_of(1, np.zeros(0), 0.05), price_grid(0.05), TERMS)

    assert found.price is None
    assert len(found.tested) == 1
    missing = found.tested[0].missing
    assert missing is not None
    assert 300 < missing < 5_000


@pytest.mark.parametrize("seed", range(3))
def test_rarely_certifies_at_the_limit(seed: int) -> None:
    """At a loss of exactly the limit, few streams ever reach what certifies, looked at always."""
    draw = np.random.default_rng(seed)
    streams = draw.random((200, 2_000)) < TERMS.loses_at_most

    reached = sum((evidence_over_time(one.astype(float), 0.02, 1.0) >= TERMS.needed).any() for one in streams)

    assert reached <= 20  # of 200; more than 20 has a probability of 0.03 % at 5 %
