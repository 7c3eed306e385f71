"""The bounds that rules, keys, models and clients set on a request's tier."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.rules import Rule
from gateway.openai_api.requests import ClientLimits
from gateway.routing.bounds import Bound
from gateway.routing.policy import choose, explore_choice
from router_model.predictor import Prediction
from tests.making import TIERS, any_limits, bounds_of


def test_nothing_bounds() -> None:
    """With nothing configured, the ceiling is the highest tier and nothing is guaranteed."""
    free = bounds_of()

    assert (free.ceiling.index, free.floor, free.fixed, free.pin, free.guarantee) == (
        3,
        None,
        None,
        None,
        None,
    )


def test_highest_floor_and_lowest_ceiling_hold() -> None:
    """The tightest of several bounds applies, with its own reason."""
    rules = [Rule(name="a", floor="short", ceiling="medium"), Rule(name="b", floor="medium")]
    found = bounds_of(
        rules, {"floor": "direct", "ceiling": "long"}, ClientLimits(effort="max"), floor="short"
    )

    assert found.floor == Bound(2, "rule_floor", "b")
    assert found.ceiling == Bound(2, "rule_ceiling", "a")


@pytest.mark.parametrize(
    ("given_", "floor", "ceiling"),
    [
        ({"floor": "short"}, Bound(1, "model_floor"), Bound(3, "client_ceiling")),
        ({"key": {"floor": "medium"}}, Bound(2, "key_floor"), Bound(3, "client_ceiling")),
        ({"key": {"ceiling": "short"}}, None, Bound(1, "key_ceiling")),
        ({"limits": ClientLimits(effort="none")}, None, Bound(0, "client_ceiling")),
        ({"limits": ClientLimits(thinking=150)}, None, Bound(1, "client_ceiling")),
        ({"rules": [Rule(name="r", ceiling="direct")]}, None, Bound(0, "rule_ceiling", "r")),
    ],
)
def test_who_bounds(given_: dict[str, Any], floor: Bound | None, ceiling: Bound) -> None:
    """The model, the key, a rule and the client can each set a bound."""
    found = bounds_of(**given_)

    assert (found.floor, found.ceiling) == (floor, ceiling)


def test_first_fixed_tier_wins() -> None:
    """If two rules fix the tier, the first in the file decides, and its tier is guaranteed."""
    found = bounds_of([Rule(name="a", tier="long"), Rule(name="b", tier="direct")], pin="short")

    assert found.fixed == Bound(3, "rule_tier", "a")
    assert (found.pin, found.guarantee) == (1, 3)


@pytest.mark.parametrize(
    ("rule", "floor", "fixed"),
    [
        ({"tier": "long"}, None, Bound(1, "key_ceiling")),
        ({"tier": "short"}, None, Bound(1, "rule_tier", "r")),
        ({"tier": "direct"}, None, Bound(0, "rule_tier", "r")),
        ({"floor": "long"}, Bound(1, "rule_floor", "r"), None),
        ({"tier": "long", "over_keys": True}, None, Bound(3, "rule_tier", "r")),
        ({"floor": "long", "over_keys": True}, Bound(3, "rule_floor", "r"), None),
    ],
)
def test_only_a_rule_over_keys_passes_a_ceiling(
    rule: dict[str, Any], floor: Bound | None, fixed: Bound | None
) -> None:
    """A key's ceiling lowers what a rule promises, unless the rule is above keys."""
    found = bounds_of([Rule(name="r", **rule)], {"ceiling": "short"})

    assert (found.floor, found.fixed) == (floor, fixed)


def test_models_floor_stays_below_a_keys_ceiling() -> None:
    """The client chooses the model, so the floor of a model does not lift it above its key's ceiling."""
    assert bounds_of(key={"ceiling": "short"}, floor="long").floor == Bound(1, "model_floor")


tier_names = st.sampled_from(list(TIERS))
outcomes = st.one_of(
    st.fixed_dictionaries({"tier": tier_names}),
    st.fixed_dictionaries({"floor": tier_names}, optional={"ceiling": tier_names}),
    st.fixed_dictionaries({"ceiling": tier_names}),
)


@given(
    st.lists(outcomes, max_size=4),
    tier_names,
    st.none() | tier_names,
    st.none() | tier_names,
    any_limits,
    st.floats(0, 1, exclude_max=True),
)
def test_nothing_passes_a_keys_ceiling(
    rules: list[dict[str, Any]],
    ceiling: str,
    model_floor: str | None,
    pin: str | None,
    limits: ClientLimits,
    chance: float,
) -> None:
    """Whatever rules match, whatever the client asks for and chance draws, no rung is above the ceiling."""
    made = [Rule(name=f"r{number}", **outcome) for number, outcome in enumerate(rules)]
    found = bounds_of(made, {"ceiling": ceiling}, limits, pin, floor=model_floor)
    prediction = Prediction(0.5, (0.1, 0.4, 0.7, 1.0), (1.0, 2.0, 3.0, 4.0))

    choice = explore_choice(choose(found, prediction, 0.0), 0.5, chance)

    most = list(TIERS).index(ceiling)
    assert choice.index <= most
    assert choice.eligible.stop - 1 <= most
    assert (found.guarantee or 0) <= most
