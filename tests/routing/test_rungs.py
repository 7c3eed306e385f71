"""Rungs between the named tiers: geometric, whole numbers, and never beyond what a tier's name promises."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.models import Tier
from gateway.openai_api.requests import ClientLimits
from gateway.routing.bounds import Bound, Bounds
from gateway.routing.policy import choose
from gateway.routing.rungs import Rung, build_rungs
from gateway.routing.tiers import TierLadder
from router_model.predictor import Prediction
from tests.making import SWITCH, TIERS, ladder, ladders, plain

counts = st.integers(2, 32)
thinking = st.lists(st.integers(0, 40_000), min_size=1, max_size=6).map(sorted)


def rungs_of(thinking: list[int], count: int, answer: int | None = 100) -> tuple[Rung, ...]:
    return build_rungs([Tier(thinking=tokens, answer=answer) for tokens in thinking], count)


@given(thinking, counts)
def test_named_tiers_are_rungs(tiers: list[int], count: int) -> None:
    """Every tier is a rung, under its own name; the others lie strictly between the tiers around them."""
    rungs = rungs_of(tiers, count)

    assert [(rung.tier, rung.thinking) for rung in rungs if rung.named] == list(enumerate(tiers))
    for rung in rungs:
        if not rung.named:
            assert rung.sent_as == rung.tier + 1
            assert tiers[rung.tier] < rung.thinking < tiers[rung.sent_as]
    assert [rung.thinking for rung in rungs] == sorted(rung.thinking for rung in rungs)


@given(thinking, counts)
def test_number_of_rungs(tiers: list[int], count: int) -> None:
    """There are as many rungs as asked for, if not more tiers, and if whole numbers between them suffice."""
    rungs = rungs_of(tiers, count)
    between = [rung.thinking for rung in rungs if not rung.named]

    assert len(set(between)) == len(between)
    assert len(rungs) <= max(count, len(tiers))
    # with even steps in ln(thinking), the first ones above a low tier such as 1 are less than a token apart
    wide = any(high > 200 and high > 1.9 * low and not 0 < low < 100 for low, high in pairwise(tiers))
    assert len(rungs) == max(count, len(tiers)) or not wide


@given(st.integers(400, 4_000), st.floats(1.5, 8), st.floats(1.5, 8), st.integers(6, 32))
def test_steps_are_geometric_and_even(first: int, second: float, third: float, count: int) -> None:
    """Steps between two tiers are equal in ln(thinking), and no tier's steps are twice as wide as needed."""
    tiers = [0, first, round(first * second), round(first * second * third)]
    rungs = rungs_of(tiers, count)
    steps = []
    for low in range(1, 3):
        part = [rung.thinking for rung in rungs if tiers[low] <= rung.thinking <= tiers[low + 1]]
        found = [math.log(high / below) for below, high in pairwise(part)]
        assert max(found) - min(found) < 0.02
        steps.append((max(found), len(found)))
    widest = max(step for step, _ in steps)
    assert all(step * pieces / (pieces - 1) >= widest - 0.02 for step, pieces in steps if pieces > 1)


@given(st.integers(4, 16_000), counts)
def test_rungs_below_the_shortest_thinking_tier(first: int, count: int) -> None:
    """They lie between a quarter of that tier and itself."""
    below = [rung.thinking for rung in rungs_of([0, first], count) if not rung.named]

    assert all(first / 4 - 0.5 <= tokens < first for tokens in below)


@pytest.mark.parametrize(
    ("tiers", "count", "expected"),
    [
        ([0, 1024, 4096], 9, [0, 362, 512, 724, 1024, 1448, 2048, 2896, 4096]),
        ([0, 24, 96, 320], 13, [0, 8, 12, 17, 24, 34, 48, 68, 96, 130, 175, 237, 320]),
        ([1000, 4000], 3, [1000, 2000, 4000]),
        ([0, 1, 2, 3], 13, [0, 1, 2, 3]),
        ([5, 5, 9], 32, [5, 5, 6, 7, 8, 9]),
        ([0], 13, [0]),
        ([0, 24, 96, 320], 2, [0, 24, 96, 320]),
    ],
)
def test_usual_ladders(tiers: list[int], count: int, expected: list[int]) -> None:
    """Usual ladders, and those that leave no room."""
    assert [rung.thinking for rung in rungs_of(tiers, count)] == expected


@pytest.mark.parametrize(("low", "high", "middle"), [(100, 300, 200), (300, 100, 200), (None, 5, None)])
def test_room_for_the_answer_is_interpolated(low: int | None, high: int, middle: int | None) -> None:
    """Half way in ln(1 + thinking), the answer has the mean room; none is unlimited beside a tier without."""
    tiers = [Tier(thinking=999, answer=low), Tier(thinking=9_999, answer=high)]

    assert build_rungs(tiers, 3)[1].answer == middle


@pytest.mark.parametrize(
    ("family", "model", "count"),
    [
        (SWITCH, {}, 9),
        (SWITCH, {"thinking_budget": False}, 4),
        (SWITCH, {"rungs": None}, 4),
        ({"thinking": {"reasoning_effort": "$effort"}, "efforts": ["low", "medium", "high"]}, {}, 4),
        ({"thinking": {"e": "$effort", "b": "$budget"}, "efforts": ["low", "medium", "high"]}, {}, 4),
        ({"thinking": {"e": "$effort", "b": "$budget"}, "efforts": ["high"]}, {}, 9),
        (SWITCH, {"tiers": TIERS | {"long": TIERS["long"] | {"overlay": {"top_p": 0.5}}}}, 4),
        (SWITCH, {"tiers": TIERS | {"direct": TIERS["direct"] | {"overlay": {"top_p": 0.5}}}}, 9),
    ],
    ids=["number", "not sent", "named only", "effort", "both", "one effort", "overlay", "overlay of direct"],
)
def test_who_has_rungs(family: dict[str, Any], model: dict[str, Any], count: int) -> None:
    """Only models whose thinking tiers differ in a number alone have rungs between them."""
    assert len(ladder(family=family, **({"rungs": 9} | model)).rungs) == count


def test_a_rung_is_sent_as_the_tier_above_it() -> None:
    """A rung below the shortest thinking tier thinks, and has no overlay of the tier that does not."""
    tiers = {"direct": {"thinking": 0, "overlay": {"top_k": 1}}, "short": {"thinking": 64}}
    made = ladder(tiers, rungs=3)
    sent = plain(made.apply({}, 1, made.length(1, ClientLimits())))

    assert sent["thinking_token_budget"] == made.thinking[1] == 32
    assert sent["chat_template_kwargs"] == {"enable_thinking": True}
    assert "top_k" not in sent


@given(ladders, st.data(), st.floats(0, 5))
def test_names_keep_their_promises(made: TierLadder, data: st.DataObject, price: float) -> None:
    """Whatever the head expects, a floor, a ceiling and a pin mean exactly the tiers that they name."""
    count, named = len(made.rungs), st.sampled_from(made.named)
    estimates = st.lists(st.floats(0, 1), min_size=count, max_size=count)
    prediction = Prediction(0.5, tuple(data.draw(estimates)), tuple(1000 * n for n in data.draw(estimates)))
    floor, ceiling = data.draw(named), data.draw(named)
    bounds = Bounds(Bound(ceiling, "key_ceiling"), Bound(floor, "key_floor"))
    pinned = Bounds(Bound(count - 1, "client_ceiling"), pin=data.draw(named))

    chosen = made.thinking[choose(bounds, prediction, price).index]
    assert made.thinking[floor] <= chosen <= max(made.thinking[ceiling], made.thinking[floor])
    assert choose(pinned, prediction, price).index == pinned.pin


@given(ladders, st.integers(0, 40_000))
def test_a_client_limit_between_two_rungs_is_granted_exactly(made: TierLadder, tokens: int) -> None:
    """If the model takes budgets, a client's limit gives exactly so many tokens, up to the longest rung's."""
    limits = ClientLimits(thinking=tokens)
    granted = made.length(made.highest(limits), limits).thinking

    assert granted <= tokens
    if made.enforces_thinking_budget:
        assert granted == min(tokens, made.thinking[-1])
