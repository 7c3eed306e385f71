"""Tiers: what a wish leaves of each, and how one is written into a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.config import EFFORTS
from gateway.protocol import ChatBody, Fields, Wish, parse_chat
from gateway.tiers import Ladder, Length
from tests.gateway.making import chat, ladder, ladders, plain, tokens, wishes

CONTEXT = st.none() | st.integers(1, 60_000)
OURS = {"reasoning", "thinking", "thinking_token_budget", "reasoning_effort", "max_tokens"} | {
    "max_completion_tokens",
    "chat_template_kwargs",
}
"""Fields of a request that we answer for."""


@st.composite
def positions(draw: st.DrawFn) -> tuple[Ladder, int]:
    """A ladder and the position of a tier on it."""
    made = draw(ladders)
    return made, draw(st.integers(0, len(made.names) - 1))


# --- how far a wish lets a request climb --------------------------------------------------------------


@given(ladders)
def test_cheapest_first(made: Ladder) -> None:
    """A ladder stands in the order of reasoning tokens, however the file lists its tiers."""
    thinking = [tier.thinking for tier in made.tiers]

    assert thinking == sorted(thinking)


@given(ladders, wishes, st.sampled_from(EFFORTS), st.sampled_from(EFFORTS))
def test_more_effort_never_allows_less(made: Ladder, wish: Wish, one: str, other: str) -> None:
    """The highest tier rises with the effort asked for."""
    low, high = sorted((one, other), key=EFFORTS.index)

    assert made.highest(_with(wish, effort=low)) <= made.highest(_with(wish, effort=high))


@given(ladders, wishes, tokens, tokens)
def test_more_tokens_never_allow_less(made: Ladder, wish: Wish, one: int, other: int) -> None:
    """The highest tier rises with the reasoning tokens asked for."""
    low, high = sorted((one, other))

    assert made.highest(_with(wish, thinking=low)) <= made.highest(_with(wish, thinking=high))


@given(ladders, wishes, st.text(max_size=8).filter(lambda word: word.lower() not in EFFORTS))
def test_unknown_effort_allows_the_least(made: Ladder, wish: Wish, word: str) -> None:
    """An effort we do not know allows no more than `none`."""
    assert made.highest(_with(wish, effort=word)) == made.highest(_with(wish, effort="none"))


@given(ladders)
def test_no_wish_allows_everything(made: Ladder) -> None:
    """A client that says nothing about reasoning leaves every tier open."""
    assert made.highest(Wish()) == len(made.names) - 1


@pytest.mark.parametrize(
    ("wish", "tier"),
    [
        (Wish(effort="none"), "direct"),
        (Wish(effort="minimal"), "direct"),
        (Wish(effort="low"), "short"),
        (Wish(effort="medium"), "medium"),
        (Wish(effort="high"), "long"),
        (Wish(effort="xhigh"), "long"),
        (Wish(effort="max"), "long"),
        (Wish(thinking=0), "direct"),
        (Wish(thinking=1), "short"),
        (Wish(thinking=200), "short"),
        (Wish(thinking=201), "medium"),
        (Wish(thinking=9_999), "long"),
        (Wish(effort="low", thinking=800), "short"),
        (Wish(effort="high", thinking=0), "direct"),
    ],
)
def test_highest_tier_of_the_usual_ladder(wish: Wish, tier: str) -> None:
    """Efforts between two tiers round down; a budget between two is the upper one, cut to it."""
    made = ladder()

    assert made.names[made.highest(wish)] == tier


def test_budget_that_cannot_be_sent_rounds_down() -> None:
    """Where the backend takes no budget, one between two tiers means the lower tier."""
    made = ladder(thinking_budget=False)

    assert made.names[made.highest(Wish(thinking=399))] == "short"


def test_single_tier_takes_every_name() -> None:
    """A floor named `long` means something on a model without a choice, too."""
    assert ladder({"only": {"thinking": 0}}).index("long") == 0


# --- how long it may be -------------------------------------------------------------------------------


@given(positions(), wishes, CONTEXT)
def test_length_within_the_wish(position: tuple[Ladder, int], wish: Wish, context: int | None) -> None:
    """Without a guarantee nothing exceeds what the client allows, the tier or the context."""
    made, index = position
    length = made.length(index, wish, 0, context)

    assert 0 <= length.thinking <= made.tiers[index].thinking
    assert wish.thinking is None or length.thinking <= wish.thinking
    assert context is None or length.thinking <= context
    if length.cap is None:
        assert made.tiers[index].answer is None
        assert wish.max_tokens is None
    else:
        assert length.thinking <= length.cap
        assert wish.max_tokens is None or length.cap <= wish.max_tokens
        assert context is None or length.cap <= context


@given(positions(), wishes, tokens, CONTEXT)
def test_guarantee(position: tuple[Ladder, int], wish: Wish, wanted: int, context: int | None) -> None:
    """Guaranteed reasoning outranks every wish, and only the context can take it away."""
    made, index = position
    guaranteed = min(wanted, made.tiers[index].thinking)
    length = made.length(index, wish, wanted, context)

    assert min(guaranteed, context or guaranteed) <= length.thinking <= made.tiers[index].thinking
    assert length.cap is None or length.thinking <= length.cap
    assert context is None or length.cap is None or length.cap <= context


@given(positions(), wishes, tokens)
def test_guarantee_leaves_the_answer_its_room(
    position: tuple[Ladder, int], wish: Wish, guaranteed: int
) -> None:
    """Under a guarantee the client's cap holds for the answer alone, so it is no reason to cut it."""
    made, index = position
    length = made.length(index, wish, guaranteed)

    if wish.max_tokens is not None and length.cap is not None:
        wanted = min(wish.max_tokens, made.tiers[index].answer or wish.max_tokens)
        assert length.cap - min(guaranteed, made.tiers[index].thinking) >= wanted


@given(positions(), wishes, CONTEXT)
def test_answer_keeps_its_room(position: tuple[Ladder, int], wish: Wish, context: int | None) -> None:
    """Of a cap that is too small, half is kept for the answer: reasoning without one is worth nothing."""
    made, index = position
    length = made.length(index, wish, 0, context)

    if length.cap is not None:
        assert length.cap - length.thinking >= min(made.tiers[index].answer or length.cap, length.cap // 2)


@given(positions(), tokens)
def test_wish_within_the_tier_is_met_in_full(position: tuple[Ladder, int], wanted: int) -> None:
    """A budget alone is granted to the token, up to the tier's own."""
    made, index = position

    assert made.length(index, Wish(thinking=wanted)).thinking == min(wanted, made.tiers[index].thinking)


@pytest.mark.parametrize(
    ("wish", "guaranteed", "context", "length"),
    [
        (Wish(), 0, None, Length(400, 500)),
        (Wish(thinking=50), 0, None, Length(50, 150)),
        (Wish(thinking=50), 200, None, Length(200, 300)),
        (Wish(max_tokens=300), 0, None, Length(200, 300)),
        (Wish(max_tokens=100), 0, None, Length(50, 100)),
        (Wish(max_tokens=1), 0, None, Length(0, 1)),
        (Wish(max_tokens=60), 200, None, Length(200, 260)),
        (Wish(max_tokens=9_999), 200, None, Length(400, 500)),
        (Wish(), 0, 300, Length(200, 300)),
        (Wish(), 400, 300, Length(300, 300)),
        (Wish(max_tokens=60), 200, 240, Length(200, 240)),
    ],
)
def test_length_of_a_medium_tier(wish: Wish, guaranteed: int, context: int | None, length: Length) -> None:
    """The usual cases, in figures: the tier thinks 400 tokens and answers in 100."""
    assert ladder().length(2, wish, guaranteed, context) == length


def test_tier_without_a_cap_still_thinks() -> None:
    """`answer: null` sends no cap of ours; it does not switch reasoning off."""
    made = ladder({"open": {"thinking": 400, "answer": None}})

    assert made.length(0, Wish()) == Length(400, None)
    assert made.length(0, Wish(max_tokens=500)) == Length(250, 500)
    assert plain(made.apply({}, "open", Length(400, None)))["thinking_token_budget"] == 400


# --- how it is written into a request -----------------------------------------------------------------

raw_values = st.sampled_from(
    [
        "1",
        "-0",
        "0.10",
        "1e-7",
        "1E400",
        "123456789012345678901234567890",
        "null",
        "true",
        '"\\u00e9\\/"',
        '"é"',
        '{"a" : {"b":[1, 2 ,{}]}}',
        "[ ]",
        '""',
        '{"$budget": "$effort"}',
    ]
)
unread = st.text(max_size=9).filter(lambda name: name not in {*OURS, *ChatBody.__struct_fields__})
raw_fields = st.dictionaries(unread, raw_values, max_size=5)


@given(positions(), raw_fields, wishes)
def test_other_fields_keep_their_bytes(
    position: tuple[Ladder, int], fields: dict[str, str], wish: Wish
) -> None:
    """Every field that is not ours reaches the backend byte for byte."""
    made, index = position
    own = {"model": '"m"', "messages": "[ ]", "max_tokens": "5", "reasoning_effort": '"low"'}
    sent = fields | own
    body = "{" + ",".join(f"{json.dumps(name)}: {value}" for name, value in sent.items()) + "}"
    request = parse_chat(body.encode())
    applied = made.apply(request.fields, made.names[index], made.length(index, wish))

    kept = {name: bytes(value).decode() for name, value in applied.items() if name not in OURS}
    assert kept == {name: value for name, value in sent.items() if name not in OURS}


@given(positions(), wishes)
def test_one_dialect_is_left(position: tuple[Ladder, int], wish: Wish) -> None:
    """What the client said of reasoning in its dialects is replaced by what the family understands."""
    made, index = position
    said = {"reasoning": {"effort": "max"}, "thinking": {"budget_tokens": 90_000}, "max_tokens": 90_000}
    length = made.length(index, wish)
    applied = plain(made.apply(chat(**said, thinking_token_budget=90_000).fields, made.names[index], length))

    if made.changes_requests:
        assert not {"reasoning", "thinking", "max_tokens"} & applied.keys()
        assert applied.get("thinking_token_budget", 0) <= max(length.thinking, 1)
        assert applied.get("max_completion_tokens") == length.cap


SHORT = Length(200, 300)


def applied(made: Ladder, tier: str = "short", length: Length = SHORT, **fields: Any) -> Any:
    return plain(made.apply(chat(**fields).fields, tier, length))


def test_template_variables_are_merged() -> None:
    """The client's other template variables stay, byte for byte; its word on thinking does not."""
    fields: Fields = {"chat_template_kwargs": Raw(b'{"documents":[ 1e-7 ],"enable_thinking":false}')}
    sent = ladder().apply(fields, "short", Length(200, 300))["chat_template_kwargs"]

    assert bytes(sent) == b'{"documents":[ 1e-7 ],"enable_thinking":true}'


@pytest.mark.parametrize("word", [{"thinking": True}, {"thinking_budget": 9}, {"reasoning_effort": "max"}])
def test_template_variables_cannot_go_around_the_decision(word: dict[str, Any]) -> None:
    """A template that knows another name for thinking is not switched on behind our back."""
    sent = applied(ladder(), "direct", Length(0, 100), chat_template_kwargs=word)

    assert sent["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("theirs", [None, 5, "text", [1]])
def test_field_that_cannot_be_merged_is_replaced(theirs: Any) -> None:
    """Where the client sent no object, ours stands alone instead of failing."""
    tiers = {"only": {"thinking": 0, "overlay": {"vllm_xargs": {"a": 1}}}}

    assert applied(ladder(tiers), "only", vllm_xargs=theirs)["vllm_xargs"] == {"a": 1}


def test_overlay_of_a_tier_goes_over_the_family() -> None:
    """A tier's own overlay is merged last: objects field by field, all else as a whole."""
    overlay = {"chat_template_kwargs": {"style": "terse"}, "temperature": 0.25}
    sent = applied(ladder({"short": {"thinking": 200, "overlay": overlay}}), temperature=1, top_p=0.5)

    assert sent["chat_template_kwargs"] == {"enable_thinking": True, "style": "terse"}
    assert (sent["temperature"], sent["top_p"]) == (0.25, 0.5)


def test_model_without_reasoning_is_left_alone() -> None:
    """One tier, no cap, nothing to add: the request passes as it came."""
    fields = chat(max_tokens=5, reasoning_effort="low").fields
    made = ladder({"direct": {"thinking": 0, "answer": None}}, {"no_thinking": {}})

    assert not made.changes_requests
    assert made.apply(fields, "direct", Length(0, 5)) is fields


def test_single_tier_of_a_thinking_model_is_applied() -> None:
    """A model whose only tier has thinking off has it switched off."""
    made = ladder({"direct": {"thinking": 0, "answer": None}})

    assert applied(made, "direct", Length(0, None))["chat_template_kwargs"] == {"enable_thinking": False}


def test_legacy_completion() -> None:
    """A completion has no template: its own `max_tokens` is held, and none is invented."""
    asked = parse_chat(b'{"model":"m","messages":[],"max_tokens":900}').fields

    assert plain(Ladder.clamp(asked, Length(200, 300)))["max_tokens"] == 300
    assert Ladder.clamp(asked, Length(200, None)) is asked
    assert "max_tokens" not in Ladder.clamp(chat().fields, Length(200, 300))


def _with(wish: Wish, **changes: Any) -> Wish:
    values = {"effort": wish.effort, "thinking": wish.thinking, "max_tokens": wish.max_tokens}
    return Wish(**(values | changes))
