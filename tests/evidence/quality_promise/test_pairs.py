"""Which pairs the promise of quality asks for, which of them count, and how the outcome is told."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.evidence import QualitySettings
from gateway.evidence.quality_promise.pairs import (
    GradedPair,
    PromiseFound,
    asked_instead,
    compared_rungs,
    promise_found,
    told,
)
from gateway.routing.decision import Rungs
from router_model.promise import STEPS, losses_at, price_grid
from tests.making import TIERS, decision

CORRECT = dict(zip(TIERS, (0.50, 0.60, 0.66, 0.70), strict=True))
TOKENS = dict(zip(TIERS, (100.0, 300.0, 700.0, 1_500.0), strict=True))
THINKING = (0, 100, 200, 300)
PRICES = {0.8: 0, 0.4: 1, 0.2: 1, 0.1: 2}
"""The rung of best value at each price of the grid."""
QUALITY = QualitySettings.model_validate({})


def pair(**changes: Any) -> GradedPair:
    rungs = Rungs(THINKING, tuple(CORRECT.values()), tuple(TOKENS.values()), (0, 1, 2, 3), 0, 3)
    usual: dict[str, Any] = {"reason": "uncertified", "price": 0.8, "served_rung": 3, "shadow_rung": 1}
    bounds = {name: changes.pop(name) for name in ("lowest", "highest", "thinking") if name in changes}
    encoded = msgspec.json.encode(msgspec.structs.replace(rungs, **bounds))
    return GradedPair(**({"rungs": encoded, "served_score": 1.0, "shadow_score": 0.0} | usual | changes))


def test_rungs_are_drawn_evenly_over_the_prices() -> None:
    """By the decision's ID, which is random."""
    ids = (f"{n:08x}" for n in range(0, 2**32, 2**22))
    fixed = {"reason": "uncertified", "price": 0.8}
    drawn = Counter(asked_instead(decision("long", CORRECT, TOKENS, id=name, **fixed), 3) for name in ids)

    assert drawn == {0: 256, 1: 512, 2: 256}
    assert set(PRICES) == set(price_grid(0.8))


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "price"},  # the client got the rung of the price
        {"price": 0.0},  # every price gives the promised rung
    ],
)
def test_other_requests_are_not_asked_instead(changes: dict[str, Any]) -> None:
    usual = {"id": "00000000", "reason": "holdout", "price": 0.8}

    assert asked_instead(decision("long", CORRECT, TOKENS, **(usual | changes)), 3) is None


def test_a_rung_that_a_bound_gave_is_not_asked_instead() -> None:
    """It is not that of the promise."""
    made = decision("medium", CORRECT, TOKENS, id="00000000", reason="uncertified", price=0.8)

    assert asked_instead(made, 3) is None


@given(st.sampled_from(sorted(PRICES)), st.integers(0, 2**32 - 1))
def test_what_is_asked_is_what_counts(price: float, draw: int) -> None:
    """The probability of the draw is the one by which the loss is weighed."""
    made = decision("long", CORRECT, TOKENS, id=f"{draw:08x}", reason="uncertified", price=0.8)
    asked = asked_instead(made, 3)
    compared = compared_rungs([pair(shadow_rung=asked)], THINKING, 3, priced=False)

    (loss,) = losses_at(compared, price)

    share = sum(rung == PRICES[price] for rung in PRICES.values()) / len(PRICES)
    assert loss == pytest.approx(1 / share if asked == PRICES[price] else 0.0)


def test_pairs_that_count() -> None:
    """Of requests with a fixed rung always, of those with the price's rung only if that acts."""
    fixed, served = pair(reason="holdout"), pair(reason="price", served_rung=1, shadow_rung=3)
    others = [
        pair(served_rung=2),  # a bound gave another rung
        pair(reason="explored", served_rung=1, shadow_rung=3),
        pair(reason="price", served_rung=1, shadow_rung=2),
        pair(thinking=(0, 1, 2, 3)),  # another ladder
        pair(rungs=b"{"),
    ]

    safe = compared_rungs([fixed, served, *others], THINKING, 3, priced=False)
    priced = compared_rungs([fixed, served, *others], THINKING, 3, priced=True)

    assert safe.loss.tolist() == [1.0]
    assert priced.loss.tolist() == [1.0, -1.0]
    assert priced.seen.tolist() == [1, 1]
    assert priced.drawn_from.tolist() == [list(price_grid(0.8)), [0.8] * STEPS]


def test_the_promised_tier_stays_within_the_bounds() -> None:
    """A request that may get no more than a medium rung is compared with that."""
    compared = compared_rungs([pair(served_rung=2, highest=2)], THINKING, 3, priced=False)

    assert compared.against.tolist() == [2]
    assert compared.eligible.tolist() == [[1, 1, 1, 0]]


def test_no_pairs_prove_nothing() -> None:
    found = promise_found("m", [], THINKING, 3, wanted=0.8, quality=QUALITY)

    assert (found.price, found.pairs, found.loss) == (None, 0, None)
    assert found.missing
    assert found.missing > 300


def test_many_equal_pairs_certify_the_price() -> None:
    """Each of them at a rung that was drawn."""
    ids = np.random.default_rng(1).integers(0, 2**32, 4_000)
    decisions = [
        decision("long", CORRECT, TOKENS, id=f"{n:08x}", reason="uncertified", price=0.8) for n in ids
    ]
    pairs = [pair(shadow_rung=asked_instead(one, 3), shadow_score=1.0) for one in decisions]

    found = promise_found("m", pairs, THINKING, 3, wanted=0.8, quality=QUALITY)

    assert found == PromiseFound("m", 0.8, 0.8, 4_000, 0.0, 0)
    assert told(found, QUALITY) == "quality: m: certified at the configured price 0.8"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (PromiseFound("m", None, 0.8, 0, None, 1_234), "not certified, so that long acts: about 1,234 more"),
        (PromiseFound("m", 0.2, 0.8, 50, 0.013, 700), "certified up to price 0.2 of 0.8; about 700 more"),
        (PromiseFound("m", None, 0.8, 50, 0.1, None), "no number of pairs would certify more (50 graded"),
        (PromiseFound("m", None, 0.8, 50, 0.1, None), "+10.0% lost in what was seen"),
    ],
)
def test_sentences(found: PromiseFound, words: str) -> None:
    assert words in told(found, QUALITY)
