"""The price picks a tier within the bounds, and the reason names the bound that changed the choice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai_api.requests import ClientLimits
from gateway.routing import policy
from gateway.routing.bounds import Bound, Bounds
from gateway.routing.outline import Outline
from gateway.routing.policy import Choice, choose, explore_choice
from router_model.predictor import Prediction
from tests.making import any_limits, bounds_of, ladder, ladders

CEILINGS = ("client_ceiling", "key_ceiling", "rule_ceiling")
FLOORS = ("model_floor", "key_floor", "rule_floor")


@st.composite
def cases(draw: st.DrawFn) -> tuple[Bounds, Prediction]:
    """Bounds and estimates for 1 to 5 tiers. Estimates are binary fractions, so that arithmetic is exact."""
    count = draw(st.integers(1, 5))
    position = st.integers(0, count - 1)
    correct = draw(st.lists(st.integers(0, 64), min_size=count, max_size=count))
    tokens = draw(st.lists(st.integers(0, 40), min_size=count, max_size=count))
    prediction = Prediction(0.5, tuple(c / 64 for c in correct), tuple(1000.0 * t for t in tokens))
    drawn = Bounds(
        draw(st.builds(Bound, position, st.sampled_from(CEILINGS))),
        draw(st.none() | st.builds(Bound, position, st.sampled_from(FLOORS), st.none() | st.just("r"))),
        draw(st.none() | st.builds(Bound, position, st.just("rule_tier"), st.just("fixed"))),
        draw(st.none() | position),
    )
    return drawn, prediction


prices = st.integers(0, 64).map(lambda n: n / 64)


def value(prediction: Prediction, price: float, index: int) -> float:
    return prediction.correct[index] - price * prediction.tokens[index] / 1000


@given(cases(), prices)
def test_choice_is_within_the_bounds(case: tuple[Bounds, Prediction], price: float) -> None:
    """A fixed tier is taken; else the floor holds, and the ceiling too unless the floor is above it."""
    bounds, prediction = case
    choice = choose(bounds, prediction, price)

    assert choice.index in choice.eligible
    if bounds.fixed:
        assert choice.index == bounds.fixed.index
    else:
        low = bounds.floor.index if bounds.floor else 0
        assert low <= choice.index <= max(bounds.ceiling.index, low)


@given(cases(), prices)
def test_reason_says_what_bound(case: tuple[Bounds, Prediction], price: float) -> None:
    """Without the bound that the reason names, the choice would have been different."""
    bounds, prediction = case
    choice = choose(bounds, prediction, price)
    top = len(prediction.correct) - 1
    free = choose(Bounds(Bound(top, "client_ceiling"), pin=bounds.pin), prediction, price)
    unraised = choose(replace(bounds, floor=None), prediction, price)

    if bounds.fixed:
        assert (choice.reason, choice.rule) == ("rule_tier", "fixed")
    elif top == 0:
        assert choice.reason == "only_tier"
    elif choice.reason in FLOORS:
        assert bounds.floor
        assert (choice.reason, choice.rule) == (bounds.floor.reason, bounds.floor.rule)
        assert choice.index > unraised.index
    elif choice.reason in CEILINGS:
        assert choice.reason == bounds.ceiling.reason
        assert choice.index <= bounds.ceiling.index < free.index
    else:
        assert choice.reason == ("price" if bounds.pin is None else "pinned")
        assert choice.index == free.index <= bounds.ceiling.index


@given(cases(), prices)
def test_choice_is_the_best_value(case: tuple[Bounds, Prediction], price: float) -> None:
    """No eligible tier has a higher value, and the cheapest wins a tie."""
    bounds, prediction = case
    choice = choose(bounds, prediction, price)
    best = max(value(prediction, price, index) for index in choice.eligible)

    assert choice.index == min(i for i in choice.eligible if value(prediction, price, i) == best)


@given(cases(), prices, prices)
def test_higher_price_never_buys_more_tokens(
    case: tuple[Bounds, Prediction], one: float, other: float
) -> None:
    """The expected tokens of the choice never rise with the price."""
    bounds, prediction = case
    low, high = sorted((one, other))
    cheap, dear = (choose(bounds, prediction, price).index for price in (low, high))

    assert prediction.tokens[dear] <= prediction.tokens[cheap]


@given(cases(), prices, st.integers(1, 5))
def test_equal_estimates_choose_the_cheapest(
    case: tuple[Bounds, Prediction], price: float, count: int
) -> None:
    """If thinking gains nothing, the lowest tier within the bounds is taken."""
    bounds = replace(case[0], fixed=None, pin=None, floor=None, ceiling=Bound(count - 1, "client_ceiling"))

    assert choose(bounds, Prediction(0.5, (0.5,) * count, (100.0,) * count), price).index == 0


ONE_BETTER = Prediction(0.5, (0.0, 0.25, 0.75, 1.0), (0.0, 1000.0, 2000.0, 3000.0))


@pytest.mark.parametrize(
    ("bounds", "choice"),
    [
        (Bounds(Bound(3, "client_ceiling")), Choice(2, "price", None, range(4))),
        (Bounds(Bound(1, "client_ceiling")), Choice(0, "client_ceiling", None, range(2))),
        (Bounds(Bound(3, "client_ceiling"), pin=1), Choice(1, "pinned", None, range(1, 2))),
        (Bounds(Bound(1, "key_ceiling"), pin=3), Choice(1, "key_ceiling", None, range(1, 2))),
        (
            Bounds(Bound(3, "client_ceiling"), Bound(2, "rule_floor", "r"), pin=0),
            Choice(2, "rule_floor", "r", range(2, 3)),
        ),
        (
            Bounds(Bound(0, "client_ceiling"), Bound(3, "model_floor")),
            Choice(3, "model_floor", None, range(3, 4)),
        ),
        (
            Bounds(Bound(0, "client_ceiling"), Bound(1, "model_floor"), pin=3),
            Choice(1, "model_floor", None, range(1, 2)),
        ),
        (
            Bounds(Bound(0, "client_ceiling"), fixed=Bound(3, "rule_tier", "r"), pin=1),
            Choice(3, "rule_tier", "r", range(3, 4)),
        ),
    ],
)
def test_choices(bounds: Bounds, choice: Choice) -> None:
    """Usual cases at a price of 0.3, where the third of four tiers has the highest value."""
    assert choose(bounds, ONE_BETTER, 0.3) == choice


@given(st.data(), ladders, any_limits, prices, st.none() | st.integers(1, 50_000))
def test_decision_is_a_full_record(
    data: st.DataObject, made: Any, limits: ClientLimits, price: float, context: int | None
) -> None:
    """A decision records its inputs, and its length respects the client's limits and the guarantee."""
    count = len(made.rungs)
    floor = data.draw(st.none() | st.sampled_from(made.names))
    estimates = st.lists(st.floats(0, 1), min_size=count, max_size=count).map(tuple)
    prediction = Prediction(data.draw(st.floats(0, 1)), data.draw(estimates), data.draw(estimates))
    bound = Bounds(
        Bound(made.highest(limits), "client_ceiling"),
        None if floor is None else Bound(made.index(floor), "model_floor"),
    )
    decision = policy.build_decision(
        Outline(made, bound, limits, context),
        prediction,
        price,
        choice=choose(bound, prediction, price),
        decision_id="d",
        model="m",
        versions={"v": "1"},
    )
    guaranteed = made.thinking[made.index(floor)] if floor else 0

    assert decision.tier in decision.eligible
    assert set(decision.eligible) <= set(made.names)
    assert (decision.correct.keys(), decision.tokens.keys()) == ({*made.names}, {*made.names})
    assert (decision.id, decision.price, decision.propensity) == ("d", price, 1.0)
    assert decision.thinking >= min(guaranteed, context or guaranteed)
    assert limits.thinking is None or decision.thinking <= max(limits.thinking, guaranteed)


@given(st.integers(0, 3), st.floats(0.001, 1), st.floats(0, 1, exclude_max=True))
def test_exploration(best: int, epsilon: float, uniform: float) -> None:
    """Only eligible tiers are drawn, the reason says so, and their probabilities add up to 1."""
    choice = Choice(best, "price", None, range(4))
    drawn = explore_choice(choice, epsilon, uniform)

    assert drawn.draw is not None
    assert sum(drawn.draw.probabilities.values()) == pytest.approx(1)
    assert drawn.reason == ("price" if drawn.index == best else "explored")
    assert drawn.index in choice.eligible
    assert explore_choice(choice, 0.0, uniform) is choice
    pinned = Choice(2, "pinned", None, range(2, 3))
    assert explore_choice(pinned, epsilon, uniform) is pinned


@pytest.mark.parametrize(
    ("limits", "pin", "requested"),
    [
        (ClientLimits(), None, "adaptive"),
        (ClientLimits(max_tokens=5), None, "adaptive"),
        (ClientLimits(effort="low"), None, "short"),
        (ClientLimits(thinking=0), None, "direct"),
        (ClientLimits(effort="low"), "long", "long"),
    ],
)
def test_what_was_requested(limits: ClientLimits, pin: str | None, requested: str) -> None:
    """The decision records what the client asked for: a tier, a ceiling, or nothing."""
    found = bounds_of(limits=limits, pin=pin)
    chosen = choose(found, ONE_BETTER, 0.0)
    decision = policy.build_decision(
        Outline(ladder(), found, limits, None),
        ONE_BETTER,
        0.0,
        choice=chosen,
        decision_id="d",
        model="m",
        versions={},
    )

    assert decision.requested == requested
