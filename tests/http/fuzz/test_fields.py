"""Values of every kind in every field that the gateway reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.http.fuzz.live import CHAT, FUZZ, JSON, ROUTES, Live, assert_fair, encoded
from tests.http.raw_http import assert_error

READ_FIELDS = {
    "n",
    "model",
    "messages",
    "prompt",
    "prompt_embeds",
    "input",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "best_of",
    "thinking_token_budget",
    "metadata",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "chat_template_kwargs",
    "tools",
    "enable_thinking",
    "thinking_budget",
    "echo",
}
NESTED_FIELDS = {
    "messages": ["role", "content"],
    "stream_options": ["include_usage", "continuous_usage_stats"],
    "reasoning": ["effort", "max_tokens", "enabled", "exclude"],
    "thinking": ["type", "budget_tokens"],
    "chat_template_kwargs": ["enable_thinking", "thinking", "reasoning_effort", "thinking_budget"],
}
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, -(2**63), 2**63, 2**64, 10**30, 0.5, -0.0, 1e308),
    *(
        "",
        "none",
        "max",
        "\x00",
        "\U0001f600",
        "\u202e",
        [],
        [None],
        [[]],
        [{}],
        {},
        {"a": None},
        {"": {"": []}},
    ),
]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("field", sorted(READ_FIELDS))
def test_odd_value(live: Live, field: str, path: str) -> None:
    """A value of any kind in a field that is read, or one level below it, is served or refused."""
    for value in VALUES:
        nested: list[Any] = [{name: value} for name in NESTED_FIELDS.get(field, [])]
        if field == "messages":
            nested = [
                [message] for message in [*nested, {"role": "user", "content": [{"text": value}, value]}]
            ]
        for odd in (value, *nested):
            for extra in ({}, {"stream": True}):
                body = encoded(extra | {field: odd})
                assert_fair(live.post(path, body), body)


def test_every_field_that_is_read_is_tried() -> None:
    """The list above has every field that the code reads."""
    from gateway.openai_api.requests import ChatBody, CompletionBody, EmbeddingBody

    read = {f for body in (ChatBody, CompletionBody, EmbeddingBody) for f in body.__struct_fields__}

    assert read <= READ_FIELDS


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [0, -1, -(10**18), 1.5, "seven", False, [7]])
def test_bad_limit_is_refused(live: Live, field: str, value: Any) -> None:
    """A limit that is not a positive integer gets a 400, and `param` names it."""
    answer = live.post(CHAT, encoded({field: value}))

    assert_error(answer, 400, "invalid_value")
    assert answer.json["error"]["param"] == field


NESTED = sorted({name for names in NESTED_FIELDS.values() for name in names})
ALMOST = st.dictionaries(
    st.sampled_from(sorted(READ_FIELDS)),
    JSON | st.dictionaries(st.sampled_from(NESTED), JSON, max_size=3),
    max_size=5,
).map(lambda fields: encoded({"stream": False} | fields))


@FUZZ
@given(path=st.sampled_from(ROUTES), body=ALMOST)
def test_almost_good_body(live: Live, path: str, body: bytes) -> None:
    """A request with a few invalid fields is served or refused."""
    assert_fair(live.post(path, body), body)
