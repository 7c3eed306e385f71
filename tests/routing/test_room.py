"""What a rung may use of the room that the context leaves beside the prompt."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.config.models import ImageTokens
from gateway.openai_api.messages import Medium
from gateway.openai_api.requests import ClientLimits
from gateway.routing.bounds import Bound, Bounds
from gateway.routing.outline import Outline
from gateway.routing.prompt import medium_bound
from gateway.routing.room import counted_room, estimated_room, estimated_tokens
from gateway.routing.tiers import Length, TierLadder
from router_model.predictor import Prediction
from tests.making import any_limits, ladder, positions, tokens
from tests.routing.test_plan import RoutingPlan, planned, plans

EFFORTS = {"thinking": {"reasoning_effort": "$effort"}, "efforts": ["low", "medium", "high"]}
"""A family that is told an effort, so that nothing holds its thinking to a number of tokens."""


@pytest.mark.parametrize(
    ("limits", "guaranteed", "room", "length"),
    [
        (ClientLimits(), 0, 1000, Length(400, 500)),
        (ClientLimits(), 0, 300, Length(200, 300)),
        (ClientLimits(), 0, 101, Length(50, 101)),
        (ClientLimits(), 0, 1, Length(0, 1)),
        (ClientLimits(), 400, 300, Length(200, 300)),
        (ClientLimits(max_tokens=60), 200, 240, Length(140, 240)),
        (ClientLimits(max_tokens=450), 0, 300, Length(200, 450)),
        (ClientLimits(max_tokens=9_999), 0, 300, Length(200, 300)),
        (ClientLimits(max_tokens=200), 0, 300, Length(100, 200)),
    ],
)
def test_length_in_a_room(limits: ClientLimits, guaranteed: int, room: int, length: Length) -> None:
    """A tier of 400 reasoning tokens and an answer of 100: thinking gives way first, floors included."""
    assert ladder().length(2, limits, guaranteed, 5000, room) == length


@settings(max_examples=40)
@given(positions(), any_limits, tokens, st.integers(1, 40_000))
def test_cap_of_ours_fits(
    position: tuple[TierLadder, int], limits: ClientLimits, guaranteed: int, room: int
) -> None:
    """No token limit but the client's own exceeds the room, and the answer keeps its share of it."""
    made, index = position
    length = made.length(index, limits, guaranteed, 40_000, room)

    if length.max_tokens is not None:
        assert length.max_tokens <= room or length.max_tokens == limits.max_tokens
    left = min(room, made.length(index, limits, guaranteed, 40_000).max_tokens or room)
    if left == room:
        assert room - length.thinking >= min(made.rungs[index].answer or room, room // 2)


@settings(max_examples=40)
@given(positions(), any_limits, tokens, st.integers(1, 40_000))
def test_room_for_everything_changes_nothing(
    position: tuple[TierLadder, int], limits: ClientLimits, guaranteed: int, room: int
) -> None:
    """A rung that fits is as long as if nobody had asked."""
    made, index = position
    free = made.length(index, limits, guaranteed, room)

    assert made.length(index, limits, guaranteed, room, room + 1) == free


def wanting(tiers: TierLadder, rung: int, bounds: Bounds | None = None) -> RoutingPlan:
    """A plan that wants a rung, in a context of 5,000 tokens."""
    count = len(tiers.rungs)
    estimates = tuple(float(at == rung) for at in range(count)), tuple(100.0 for _ in range(count))
    bounds = bounds or Bounds(Bound(count - 1, "client_ceiling"))
    return planned(tiers, bounds, ClientLimits(), Prediction(0.5, *estimates), 0.0, 5000)


@pytest.mark.parametrize(
    ("room", "tier", "thinking", "cap", "reason"),
    [
        (900, "long", 800, 900, "price"),
        (899, "medium", 400, 500, "context"),
        (499, "short", 200, 300, "context"),
        (299, "direct", 0, 100, "context"),
        (40, "direct", 0, 40, "context"),
    ],
)
def test_family_without_a_budget_takes_a_tier_that_fits(
    room: int, tier: str, thinking: int, cap: int, reason: str
) -> None:
    """Nothing shortens a thought that is only told an effort, so a tier is taken whose thought fits."""
    decision = wanting(ladder(family=EFFORTS), 3).with_room(room).decision

    assert (decision.tier, decision.thinking, decision.cap, decision.reason) == (tier, thinking, cap, reason)
    assert decision.wanted == (None if tier == "long" else "long")


@pytest.mark.parametrize("bounds", [{"floor": Bound(3, "model_floor")}, {"fixed": Bound(3, "rule_tier")}])
def test_floor_gets_what_fits(bounds: dict[str, Bound]) -> None:
    """A floor or a fixed tier that does not fit becomes the longest tier that does."""
    plan = wanting(ladder(family=EFFORTS), 3, Bounds(Bound(3, "client_ceiling"), **bounds))

    assert plan.with_room(600).decision.tier == "medium"
    assert plan.with_room(600).candidates(3) == (2,)


def test_a_budget_is_shortened_to_the_token() -> None:
    """Where the backend takes a thinking budget, the tier stays and its thinking shrinks."""
    decision = wanting(ladder(), 3).with_room(700).decision

    assert (decision.tier, decision.thinking, decision.cap, decision.reason) == ("long", 600, 700, "price")


@settings(max_examples=25)
@given(plans(), st.integers(1, 5000))
def test_fitting_twice_changes_nothing(plan: RoutingPlan, room: int) -> None:
    """A plan that fits a room fits it again unchanged, and no plan grows by being fitted."""
    once = plan.with_room(room)

    assert once.with_room(room).decision == once.decision
    assert once.decision.thinking <= plan.decision.thinking
    assert once.decision.rung <= plan.decision.rung
    assert plan.decision.cap is None or (once.decision.cap or 0) <= plan.decision.cap


@pytest.mark.parametrize(
    ("tokens", "room"),
    [(1000, 6961), (7900, 75), (7999, 1), (8000, None), (9000, None)],
)
def test_room_beside_a_counted_prompt(tokens: int, room: int | None) -> None:
    """A little is spared, as another tier renders other marks; a prompt that fills the context has none."""
    assert counted_room(tokens, 8000) == room


@pytest.mark.parametrize(
    ("text", "media", "room"),
    [
        (3_000, 0, 32_768 - 256 - 1000),
        (3_000, 2_048, 32_768 - 256 - 1000 - 2048),
        (90_000, 0, 32_768 - 256 - 30_000),
        (97_000, 0, 2048),  # less than a sixteenth, if it is code
        (124_000, 0, 32_768 - 256 - 31_000),
        (130_000, 0, 256),
        (10_000_000, 0, 256),
    ],
)
def test_estimated_room(text: int, media: int, room: int) -> None:
    """Three bytes are a token, or four where that would leave next to nothing, and something is left."""
    assert estimated_room(text, media, 32_768) == room


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(1, 10**6))
def test_estimated_room_is_one(text: int, media: int, context: int) -> None:
    """The estimate is a length that the context can have."""
    assert 1 <= estimated_room(text, media, context) <= context


def test_estimated_media() -> None:
    """An image has the tokens of its rule if its size is known, and a usual size otherwise."""
    rule = ImageTokens(most=16_384)
    known, unknown, other = Medium(9, True, (280, 280)), Medium(0, True), Medium(9)

    assert estimated_tokens([known], rule, 40_000) == medium_bound(known, rule, 40_000) < 2048
    assert estimated_tokens([unknown, other], rule, 40_000) == 2 * 2048
    assert estimated_tokens([known], None, 40_000) == 2048
    assert estimated_tokens([other], None, 1000) == 1000


@pytest.mark.parametrize(
    ("limits", "room", "longest_answer", "fits"),
    [
        (ClientLimits(), 900, 0, True),
        (ClientLimits(), 899, 0, False),
        (ClientLimits(), 0, 0, False),
        (ClientLimits(max_tokens=300), 300, 0, True),
        (ClientLimits(max_tokens=300), 299, 0, False),
        (ClientLimits(min_tokens=1500), 1000, 0, False),
        (ClientLimits(min_tokens=1500), 1500, 0, True),
    ],
)
def test_what_surely_fits(limits: ClientLimits, room: int, longest_answer: int, *, fits: bool) -> None:
    """Nobody is asked where the wanted tier and all shorter ones have their full length."""
    plan = wanting(ladder(), 3)
    plan = replace(plan, outline=Outline(plan.outline.ladder, plan.outline.bounds, limits, 5000))
    plan = replace(plan, decision=plan.fitted(plan.decision))

    assert plan.fits(room, longest_answer) == fits


@pytest.mark.parametrize(("room", "longest_answer", "fits"), [(800, 0, True), (4_000, 4_096, False)])
def test_what_surely_fits_without_a_limit(room: int, longest_answer: int, *, fits: bool) -> None:
    """A tier without a limit needs room for its thinking twice, and under a budget for the longest answer."""
    plan = wanting(ladder({"open": {"thinking": 400, "answer": None}}), 0)

    assert plan.fits(room, longest_answer) == fits


def limitless(max_tokens: int, context: int, **bounds: Bound) -> RoutingPlan:
    """A plan of one tier that thinks for 50 tokens and answers without a limit."""
    tiers = ladder({"direct": {"thinking": 50, "answer": None}})
    limits, allowed = ClientLimits(max_tokens=max_tokens), Bounds(Bound(0, "client_ceiling"), **bounds)
    return planned(tiers, allowed, limits, Prediction(0.5, (1.0,), (9.0,)), 0.0, context)


@settings(max_examples=20)
@given(plans(), st.integers(1, 40_000))
@example(limitless(300, 200), 100)
@example(limitless(300, 500, floor=Bound(0, "model_floor")), 320)
def test_what_fits_is_not_changed(plan: RoutingPlan, room: int) -> None:
    """Where everything fits, knowing the room changes no candidate."""
    outline = plan.outline
    if outline.room is None and outline.context and room <= outline.context and plan.fits(room, 0):
        there = plan.with_room(room)
        assert there.decision == plan.decision
        candidates = plan.candidates(plan.decision.rung)
        assert there.candidates(plan.decision.rung) == candidates
        assert [there.outline.length(at) for at in candidates] == [outline.length(at) for at in candidates]
