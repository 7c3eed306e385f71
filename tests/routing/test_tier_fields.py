"""How a tier is written into the fields of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.openai_api.requests import ChatBody, ClientLimits, Fields, parse_chat
from gateway.routing.tiers import Length, TierLadder
from tests.making import any_limits, chat, ladder, plain, positions

OURS = {"reasoning", "thinking", "thinking_token_budget", "reasoning_effort", "max_tokens"} | {
    "max_completion_tokens",
    "chat_template_kwargs",
}
"""Fields of a request that the gateway may change."""


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


@given(positions(), raw_fields, any_limits)
def test_other_fields_keep_their_bytes(
    position: tuple[TierLadder, int], fields: dict[str, str], limits: ClientLimits
) -> None:
    """Every other field reaches the backend byte for byte."""
    made, index = position
    own = {"model": '"m"', "messages": "[ ]", "max_tokens": "5", "reasoning_effort": '"low"'}
    sent = fields | own
    body = "{" + ",".join(f"{json.dumps(name)}: {value}" for name, value in sent.items()) + "}"
    request = parse_chat(body.encode())
    applied = made.apply(request.fields, index, made.length(index, limits))

    kept = {name: bytes(value).decode() for name, value in applied.items() if name not in OURS}
    assert kept == {name: value for name, value in sent.items() if name not in OURS}


@given(positions(), any_limits)
def test_one_dialect_is_left(position: tuple[TierLadder, int], limits: ClientLimits) -> None:
    """All fields in which clients limit reasoning are replaced by those the family understands."""
    made, index = position
    said = {"reasoning": {"effort": "max"}, "thinking": {"budget_tokens": 90_000}, "max_tokens": 90_000}
    length = made.length(index, limits)
    applied = plain(made.apply(chat(**said, thinking_token_budget=90_000).fields, index, length))

    if made.changes_requests:
        assert not {"reasoning", "thinking", "max_tokens"} & applied.keys()
        assert applied.get("thinking_token_budget", 0) <= max(length.thinking, 1)
        assert applied.get("max_completion_tokens") == length.max_tokens


SHORT = Length(200, 300)


def applied(made: TierLadder, tier: str = "short", length: Length = SHORT, **fields: Any) -> Any:
    return plain(made.apply(chat(**fields).fields, made.index(tier), length))


def test_template_variables_are_merged() -> None:
    """The client's template variables stay, byte for byte, except for those about thinking."""
    fields: Fields = {"chat_template_kwargs": Raw(b'{"documents":[ 1e-7 ],"enable_thinking":false}')}
    sent = ladder().apply(fields, 1, Length(200, 300))["chat_template_kwargs"]

    assert bytes(sent) == b'{"documents":[ 1e-7 ],"enable_thinking":true}'


@pytest.mark.parametrize("word", [{"thinking": True}, {"thinking_budget": 9}, {"reasoning_effort": "max"}])
def test_template_variables_cannot_bypass_the_decision(word: dict[str, Any]) -> None:
    """A client cannot switch thinking on through another template variable."""
    sent = applied(ladder(), "direct", Length(0, 100), chat_template_kwargs=word)

    assert sent["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("theirs", "left"),
    [
        ({"reasoning_effort": "banana", "style": 1}, {"style": 1}),
        ({"thinking_mode": "enabled", "thinking_effort": "max", "enable_thinking": True}, None),
        ({"style": 1}, {"style": 1}),
        ({}, {}),
    ],
)
def test_template_variables_of_a_family_without_any(theirs: Any, left: Any) -> None:
    """The client's words for thinking are dropped where the family has none, so that no template sees them.

    An object that would be empty is dropped, as Mistral's tokenizers refuse it.
    """
    words = {"thinking": {"reasoning_effort": "$effort"}, "efforts": ["high"]}
    sent = applied(ladder(family=words), chat_template_kwargs=theirs)

    assert sent.get("chat_template_kwargs") == left


@pytest.mark.parametrize("theirs", [None, 5, "text", [1]])
def test_field_that_cannot_be_merged_is_replaced(theirs: Any) -> None:
    """If the client sent no object, ours replaces its value."""
    tiers = {"only": {"thinking": 0, "overlay": {"vllm_xargs": {"a": 1}}}}

    assert applied(ladder(tiers), "only", vllm_xargs=theirs)["vllm_xargs"] == {"a": 1}


def test_overlay_of_a_tier_goes_over_the_family() -> None:
    """A tier's own overlay is merged last: objects field by field, other values as a whole."""
    overlay = {"chat_template_kwargs": {"style": "terse"}, "temperature": 0.25}
    sent = applied(ladder({"short": {"thinking": 200, "overlay": overlay}}), temperature=1, top_p=0.5)

    assert sent["chat_template_kwargs"] == {"enable_thinking": True, "style": "terse"}
    assert (sent["temperature"], sent["top_p"]) == (0.25, 0.5)


def test_model_without_reasoning_is_left_alone() -> None:
    """With one tier, no token limit and nothing to add, the request passes unchanged."""
    fields = chat(max_tokens=5, reasoning_effort="low").fields
    made = ladder({"direct": {"thinking": 0, "answer": None}}, {"no_thinking": {}})

    assert not made.changes_requests
    assert made.apply(fields, 0, Length(0, 5)) is fields


def test_single_tier_of_a_thinking_model_is_applied() -> None:
    """If the only tier has thinking off, it is switched off."""
    made = ladder({"direct": {"thinking": 0, "answer": None}})

    assert applied(made, "direct", Length(0, None))["chat_template_kwargs"] == {"enable_thinking": False}


def test_legacy_completion() -> None:
    """A legacy completion has no template: its own `max_tokens` is lowered, and none is added."""
    asked = parse_chat(b'{"model":"m","messages":[],"max_tokens":900}').fields

    assert plain(TierLadder.clamp(asked, Length(200, 300)))["max_tokens"] == 300
    assert TierLadder.clamp(asked, Length(200, None)) is asked
    assert "max_tokens" not in TierLadder.clamp(chat().fields, Length(200, 300))
    null = parse_chat(b'{"model":"m","messages":[],"max_tokens":null}').fields
    assert TierLadder.clamp(null, Length(200, 300)) is null
