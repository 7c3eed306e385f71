"""What the gateway added to a request is found, and taken back without touching what the client sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gateway.openai_api.amendments import (
    SMALL_FIELD,
    FieldPath,
    additions,
    refused_of,
    small_fields,
    taken_back,
    with_lower_minimum,
    without_refused,
)
from gateway.openai_api.refusals import Refusal
from gateway.openai_api.requests import Fields


def fields(**values: Any) -> Fields:
    return {name: Raw(json.dumps(value).encode()) for name, value in values.items()}


def plain(raw: Fields) -> dict[str, Any]:
    return {name: json.loads(bytes(value)) for name, value in raw.items()}


OWN = fields(model="m", messages=[], chat_template_kwargs={"a": 1, "reasoning_effort": "low"}, top_k=5)
SENT = OWN | fields(
    model="served",
    thinking_token_budget=64,
    max_completion_tokens=96,
    chat_template_kwargs={"a": 1, "reasoning_effort": "max", "enable_thinking": True},
    stream_options={"include_usage": True},
)


def test_additions() -> None:
    """Fields and keys of objects count, unless the client sent them alike. The model's name never does."""
    assert {path: bytes(value) for path, value in additions(SENT, OWN).items()} == {
        ("thinking_token_budget",): b"64",
        ("max_completion_tokens",): b"96",
        ("chat_template_kwargs",): bytes(SENT["chat_template_kwargs"]),
        ("chat_template_kwargs", "reasoning_effort"): b'"max"',
        ("chat_template_kwargs", "enable_thinking"): b"true",
        ("stream_options",): bytes(SENT["stream_options"]),
        ("stream_options", "include_usage"): b"true",
    }


KEYS = ("chat_template_kwargs", "reasoning_effort")


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        ({"thinking_token_budget", "foo"}, {(("thinking_token_budget",), b"")}),
        ({"chat_template_kwargs"}, {(("chat_template_kwargs",), b"")}),
        ({"chat_template_kwargs", "reasoning_effort"}, {(KEYS, b'"max"')}),
        ({"enable_thinking"}, {(("chat_template_kwargs", "enable_thinking"), b"true")}),
        ({"top_k", "a", "messages", "model"}, set()),
        (
            {"gemma3", "does", "not", "support", "thinking"},
            {
                (("thinking_token_budget",), b""),
                (("chat_template_kwargs", "enable_thinking"), b"true"),
                (KEYS, b'"max"'),
            },
        ),
    ],
)
def test_refused_of(names: set[str], refused: set[tuple[FieldPath, bytes]]) -> None:
    """A refusal is about an addition that it names, and about a key rather than its whole field."""
    assert refused_of(additions(SENT, OWN), Refusal(frozenset(names))) == refused


@pytest.mark.parametrize(
    ("paths", "changes"),
    [
        ([("thinking_token_budget",)], {"thinking_token_budget": None}),
        ([KEYS], {"chat_template_kwargs": {"a": 1, "reasoning_effort": "low", "enable_thinking": True}}),
        ([("chat_template_kwargs",)], {"chat_template_kwargs": {"a": 1, "reasoning_effort": "low"}}),
        ([("stream_options", "include_usage")], {"stream_options": None}),
        ([("max_completion_tokens",)], {"max_completion_tokens": None, "max_tokens": 96}),
    ],
)
def test_taken_back(paths: list[FieldPath], changes: dict[str, Any]) -> None:
    """The client's own value comes back, or none; a cap stays under its older name."""
    expected = {name: value for name, value in (plain(SENT) | changes).items() if value is not None}

    assert plain(taken_back(SENT, OWN, paths)) == expected


def test_other_words_are_still_sent() -> None:
    """A refused word or 0 says nothing about other values; of other numbers, all are refused."""
    refused = refused_of(
        additions(SENT, OWN), Refusal(frozenset({"thinking_token_budget", "reasoning_effort"}))
    )
    later = SENT | fields(thinking_token_budget=99, chat_template_kwargs={"reasoning_effort": "high"})
    never = SENT | fields(thinking_token_budget=0)

    assert plain(without_refused(later, OWN, refused))["chat_template_kwargs"] == {"reasoning_effort": "high"}
    assert "thinking_token_budget" not in without_refused(later, OWN, refused)
    assert "thinking_token_budget" in without_refused(never, OWN, refused)


_values = st.one_of(
    st.integers(0, 3), st.sampled_from(["low", "max"]), st.booleans(), st.none(),
    st.dictionaries(st.sampled_from("xy"), st.integers(0, 2), max_size=2),
)  # fmt: skip
_requests = st.dictionaries(st.sampled_from("abcd"), _values, max_size=4)


@settings(max_examples=50)
@given(own=_requests, ours=_requests)
def test_all_taken_back_is_what_the_client_sent(own: dict[str, Any], ours: dict[str, Any]) -> None:
    """Without its additions, a request is the client's; fields that were not added never change."""
    theirs, sent = fields(**own), fields(**own) | fields(**ours)
    everything = frozenset((path, word) for path, word in _all(sent, theirs))

    assert plain(without_refused(sent, theirs, everything)) == own
    assert without_refused(sent, theirs, frozenset()) == sent


def _all(sent: Fields, own: Fields) -> set[tuple[FieldPath, bytes]]:
    added = additions(sent, own)
    tops = {path: value for path, value in added.items() if len(path) == 1}
    return set(refused_of(tops, Refusal(frozenset(path[0] for path in tops))))


@pytest.mark.parametrize(
    ("sent", "minimum"),
    [
        ({"min_tokens": 50, "max_completion_tokens": 20}, 20),
        ({"min_tokens": 50.0, "max_tokens": 20}, 20),
        ({"min_tokens": 5, "max_completion_tokens": 20}, 5),
        ({"min_tokens": 5}, 5),
        ({"min_tokens": "x", "max_tokens": 3}, "x"),
        ({"min_tokens": None, "max_tokens": 3}, None),
    ],
)
def test_lower_minimum(sent: dict[str, Any], minimum: object) -> None:
    assert plain(with_lower_minimum(fields(**sent)))["min_tokens"] == minimum


def test_small_fields_hold_no_body() -> None:
    """Of a large body only short fields are kept, as copies of their own."""
    body = bytearray(b'{"n":1}')
    kept = small_fields({"n": Raw(memoryview(body)[5:6]), "messages": Raw(b"x" * (SMALL_FIELD + 1))})
    body[5] = ord("2")

    assert kept == {"n": Raw(b"1")}
