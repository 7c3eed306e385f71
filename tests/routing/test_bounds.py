"""The bounds that rules, keys, models and clients set on a request's tier."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.rules import Rule
from gateway.openai_api.requests import ClientLimits
from gateway.routing.policy import Bound
from tests.making import bounds_of


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
