"""Which tiers the client's limits allow, and how many tokens a tier may use."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.models import EFFORTS
from gateway.openai_api.requests import ClientLimits
from gateway.routing.tiers import Length, TierLadder
from tests.making import any_limits, ladder, ladders, plain, positions, tokens

CONTEXT = st.none() | st.integers(1, 60_000)


# --- the highest tier that the client's limits allow ----------------------------------------------------


@given(ladders)
def test_cheapest_first(made: TierLadder) -> None:
    """Tiers are sorted by reasoning tokens, whatever their order in the file."""
    thinking = [tier.thinking for tier in made.tiers]

    assert thinking == sorted(thinking)


@given(ladders, any_limits, st.sampled_from(EFFORTS), st.sampled_from(EFFORTS))
def test_more_effort_never_allows_less(made: TierLadder, limits: ClientLimits, one: str, other: str) -> None:
    """A higher effort never lowers the highest tier."""
    low, high = sorted((one, other), key=EFFORTS.index)

    assert made.highest(_with(limits, effort=low)) <= made.highest(_with(limits, effort=high))


@given(ladders, any_limits, tokens, tokens)
def test_more_tokens_never_allow_less(made: TierLadder, limits: ClientLimits, one: int, other: int) -> None:
    """A larger limit on reasoning tokens never lowers the highest tier."""
    low, high = sorted((one, other))

    assert made.highest(_with(limits, thinking=low)) <= made.highest(_with(limits, thinking=high))


@given(ladders, any_limits, st.text(max_size=8).filter(lambda word: word.lower() not in EFFORTS))
def test_unknown_effort_allows_the_least(made: TierLadder, limits: ClientLimits, word: str) -> None:
    """An unknown effort allows no more than `none`."""
    assert made.highest(_with(limits, effort=word)) == made.highest(_with(limits, effort="none"))


@given(ladders)
def test_no_limits_allow_everything(made: TierLadder) -> None:
    """Without client limits every rung is allowed."""
    assert made.highest(ClientLimits()) == len(made.rungs) - 1


@pytest.mark.parametrize(
    ("limits", "tier"),
    [
        (ClientLimits(effort="none"), "direct"),
        (ClientLimits(effort="minimal"), "direct"),
        (ClientLimits(effort="low"), "short"),
        (ClientLimits(effort="medium"), "medium"),
        (ClientLimits(effort="high"), "long"),
        (ClientLimits(effort="xhigh"), "long"),
        (ClientLimits(effort="max"), "long"),
        (ClientLimits(thinking=0), "direct"),
        (ClientLimits(thinking=1), "short"),
        (ClientLimits(thinking=200), "short"),
        (ClientLimits(thinking=201), "medium"),
        (ClientLimits(thinking=9_999), "long"),
        (ClientLimits(effort="low", thinking=800), "short"),
        (ClientLimits(effort="high", thinking=0), "direct"),
    ],
)
def test_highest_tier_of_the_usual_ladder(limits: ClientLimits, tier: str) -> None:
    """An effort between two tiers rounds down; a thinking budget between two allows the upper one, cut."""
    made = ladder()

    assert made.tier_at(made.highest(limits)) == tier


def test_budget_that_cannot_be_sent_rounds_down() -> None:
    """If the backend takes no thinking budget, one between two tiers allows only the lower tier."""
    made = ladder(thinking_budget=False)

    assert made.tier_at(made.highest(ClientLimits(thinking=399))) == "short"


def test_single_tier_takes_every_name() -> None:
    """A floor named `long` is also valid for a model with one tier of another name."""
    assert ladder({"only": {"thinking": 0}}).index("long") == 0


# --- how many tokens a tier may use -------------------------------------------------------------------


@given(positions(), any_limits, CONTEXT)
def test_length_within_the_limits(
    position: tuple[TierLadder, int], limits: ClientLimits, context: int | None
) -> None:
    """Without a guarantee no length exceeds the client's limits, the tier or the context."""
    made, index = position
    length = made.length(index, limits, 0, context)

    assert 0 <= length.thinking <= made.rungs[index].thinking
    assert limits.thinking is None or length.thinking <= limits.thinking
    assert context is None or length.thinking <= context
    if length.max_tokens is None:
        assert made.rungs[index].answer is None
        assert limits.max_tokens is None
    else:
        assert length.thinking <= length.max_tokens
        assert limits.max_tokens is None or length.max_tokens <= limits.max_tokens
        assert context is None or length.max_tokens <= context


@given(positions(), any_limits, tokens, CONTEXT)
def test_guarantee(
    position: tuple[TierLadder, int], limits: ClientLimits, wanted: int, context: int | None
) -> None:
    """Guaranteed reasoning outranks the client's limits; only the context can reduce it."""
    made, index = position
    guaranteed = min(wanted, made.rungs[index].thinking)
    length = made.length(index, limits, wanted, context)

    assert min(guaranteed, context or guaranteed) <= length.thinking <= made.rungs[index].thinking
    assert length.max_tokens is None or length.thinking <= length.max_tokens
    assert context is None or length.max_tokens is None or length.max_tokens <= context


@given(positions(), any_limits, tokens)
def test_guarantee_does_not_shorten_the_answer(
    position: tuple[TierLadder, int], limits: ClientLimits, guaranteed: int
) -> None:
    """Under a guarantee the client's `max_tokens` bounds the answer alone."""
    made, index = position
    length = made.length(index, limits, guaranteed)

    if limits.max_tokens is not None and length.max_tokens is not None:
        wanted = min(limits.max_tokens, made.rungs[index].answer or limits.max_tokens)
        assert length.max_tokens - min(guaranteed, made.rungs[index].thinking) >= wanted


@given(positions(), any_limits, CONTEXT)
def test_answer_keeps_its_room(
    position: tuple[TierLadder, int], limits: ClientLimits, context: int | None
) -> None:
    """If `max_tokens` is too small, half of it is kept for the answer: reasoning without one is wasted."""
    made, index = position
    length = made.length(index, limits, 0, context)

    if length.max_tokens is not None:
        assert length.max_tokens - length.thinking >= min(
            made.rungs[index].answer or length.max_tokens, length.max_tokens // 2
        )


@given(positions(), tokens)
def test_thinking_budget_is_granted_exactly(position: tuple[TierLadder, int], wanted: int) -> None:
    """A client's thinking budget is granted to the token, up to the tier's own."""
    made, index = position

    assert made.length(index, ClientLimits(thinking=wanted)).thinking == min(
        wanted, made.rungs[index].thinking
    )


@pytest.mark.parametrize(
    ("limits", "guaranteed", "context", "length"),
    [
        (ClientLimits(), 0, None, Length(400, 500)),
        (ClientLimits(thinking=50), 0, None, Length(50, 150)),
        (ClientLimits(thinking=50), 200, None, Length(200, 300)),
        (ClientLimits(max_tokens=300), 0, None, Length(200, 300)),
        (ClientLimits(max_tokens=100), 0, None, Length(50, 100)),
        (ClientLimits(max_tokens=1), 0, None, Length(0, 1)),
        (ClientLimits(max_tokens=60), 200, None, Length(200, 260)),
        (ClientLimits(max_tokens=9_999), 200, None, Length(400, 500)),
        (ClientLimits(), 0, 300, Length(200, 300)),
        (ClientLimits(), 400, 300, Length(300, 300)),
        (ClientLimits(max_tokens=60), 200, 240, Length(200, 240)),
        (ClientLimits(min_tokens=700), 0, None, Length(400, 700)),
        (ClientLimits(min_tokens=70), 0, None, Length(400, 500)),
        (ClientLimits(min_tokens=700, max_tokens=800), 0, None, Length(400, 700)),
        (ClientLimits(min_tokens=700), 0, 600, Length(400, 600)),
    ],
)
def test_length_of_a_medium_tier(
    limits: ClientLimits, guaranteed: int, context: int | None, length: Length
) -> None:
    """Usual cases of a tier with 400 reasoning tokens and an answer of 100."""
    assert ladder().length(2, limits, guaranteed, context) == length


def test_tier_without_a_limit_still_thinks() -> None:
    """`answer: null` sends no token limit, but does not switch reasoning off."""
    made = ladder({"open": {"thinking": 400, "answer": None}})

    assert made.length(0, ClientLimits()) == Length(400, None)
    assert made.length(0, ClientLimits(max_tokens=500)) == Length(250, 500)
    assert plain(made.apply({}, 0, Length(400, None)))["thinking_token_budget"] == 400


def _with(limits: ClientLimits, **changes: Any) -> ClientLimits:
    values = {
        "effort": limits.effort,
        "thinking": limits.thinking,
        "max_tokens": limits.max_tokens,
    }
    return ClientLimits(**(values | changes))
