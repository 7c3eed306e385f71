"""What the promise of quality allows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.policy import Choice
from gateway.routing.promised import Promised, held_choice
from tests.making import TIERS, settings


@given(st.dictionaries(st.sampled_from(["tiny", "other"]), st.floats(0, 10)), st.floats(0, 10))
def test_no_price_is_above_the_certified_one(certified: dict[str, float], price: float) -> None:
    """A model without one is held, and its decisions name the price that would have acted."""
    promised = Promised("long", certified)

    for model in ("tiny", "other"):
        assert promised.holds(model) == (model not in certified)
        assert promised.price(model, price) == min(price, certified.get(model, price))


@pytest.mark.parametrize(
    ("eligible", "index", "expected"), [((0, 4), 3, 3), ((0, 2), 3, 1), ((2, 4), 0, 2), ((1, 4), 1, 1)]
)
def test_bounds_come_before_the_promised_tier(eligible: tuple[int, int], index: int, expected: int) -> None:
    """Of the key, the rules and the client."""
    held = held_choice(Choice(eligible[0], "price", None, range(*eligible)), index)

    assert held == Choice(expected, "uncertified", None, range(*eligible))


@pytest.mark.parametrize(("quality", "held"), [({}, True), ({"until": "price"}, False), (None, False)])
def test_models_are_held_at_first(quality: dict[str, Any] | None, held: bool) -> None:
    """Until the evidence was looked at, unless the price is to act."""
    shadow = {"share": 0.1, "budget": {"tokens": 1}}
    tiny = {"family": "qwen3", "replicas": [{"url": "http://b"}], "tiers": TIERS}
    made = settings(models={"m": tiny}, evidence={}, shadow=shadow, quality=quality)

    promised = Promised.at_first(made)

    assert (promised is not None and promised.holds("m")) is held
