"""Parsing of requests: the fields that are read, the client's limits, and what passes unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.config.models import EFFORTS
from gateway.errors import InvalidJson, InvalidRequest
from gateway.openai_api import requests as protocol
from gateway.openai_api.requests import (
    ClientLimits,
    effort_rank,
    parse_chat,
    parse_completion,
    parse_embedding,
)
from gateway.openai_api.stream_options import with_usage
from tests.making import chat, chat_body

LIMITS: list[tuple[dict[str, Any], ClientLimits]] = [
    ({}, ClientLimits()),
    *(({"reasoning_effort": effort}, ClientLimits(effort=effort)) for effort in EFFORTS),
    ({"reasoning_effort": None}, ClientLimits()),
    ({"reasoning_effort": "enormous"}, ClientLimits(effort="enormous")),
    ({"reasoning": {"effort": "low"}}, ClientLimits(effort="low")),
    ({"reasoning": {"max_tokens": 300}}, ClientLimits(thinking=300)),
    ({"reasoning": {"enabled": False}}, ClientLimits(effort="none")),
    ({"reasoning": {"enabled": False, "effort": "high"}}, ClientLimits(effort="none")),
    ({"reasoning": {"enabled": True}}, ClientLimits()),
    ({"reasoning": {"enabled": True, "effort": "medium", "exclude": True}}, ClientLimits(effort="medium")),
    ({"reasoning": {}}, ClientLimits()),
    ({"reasoning": None}, ClientLimits()),
    ({"thinking": {"type": "disabled"}}, ClientLimits(effort="none")),
    ({"thinking": {"type": "enabled", "budget_tokens": 500}}, ClientLimits(thinking=500)),
    ({"thinking": {"type": "enabled"}}, ClientLimits()),
    ({"thinking": {"type": "adaptive"}}, ClientLimits()),
    ({"thinking_token_budget": -1}, ClientLimits()),
    ({"thinking_token_budget": 0}, ClientLimits(thinking=0)),
    ({"thinking_token_budget": 77}, ClientLimits(thinking=77)),
    ({"chat_template_kwargs": {"enable_thinking": False}}, ClientLimits(effort="none")),
    ({"chat_template_kwargs": {"thinking": False}}, ClientLimits(effort="none")),
    ({"chat_template_kwargs": {"enable_thinking": True}}, ClientLimits()),
    ({"chat_template_kwargs": {"reasoning_effort": "low"}}, ClientLimits(effort="low")),
    ({"chat_template_kwargs": {"thinking_budget": 64}}, ClientLimits(thinking=64)),
    ({"chat_template_kwargs": {"thinking_budget": -1}}, ClientLimits()),
    ({"chat_template_kwargs": {"documents": [1]}}, ClientLimits()),
    ({"max_tokens": 9}, ClientLimits(max_tokens=9)),
    ({"max_completion_tokens": 8}, ClientLimits(max_tokens=8)),
    ({"max_tokens": 9, "max_completion_tokens": None}, ClientLimits(max_tokens=9)),
    ({"reasoning_effort": "high", "reasoning": {"effort": "low"}}, ClientLimits(effort="low")),
    ({"reasoning_effort": "low", "thinking": {"type": "disabled"}}, ClientLimits(effort="none")),
    (
        {"reasoning_effort": "max", "chat_template_kwargs": {"enable_thinking": False}},
        ClientLimits(effort="none"),
    ),
    ({"thinking_token_budget": 90, "reasoning": {"max_tokens": 50}}, ClientLimits(thinking=50)),
    ({"thinking_token_budget": -1, "thinking": {"budget_tokens": 50}}, ClientLimits(thinking=50)),
    (
        {"reasoning": {"effort": "high", "max_tokens": 70}, "thinking_token_budget": 80, "max_tokens": 60},
        ClientLimits(effort="high", thinking=70, max_tokens=60),
    ),
]


@pytest.mark.parametrize(("fields", "limits"), LIMITS, ids=lambda value: str(value)[:60])
def test_client_limits_in_every_dialect(fields: dict[str, Any], limits: ClientLimits) -> None:
    """Every way to limit reasoning is read into the same limits, and the lowest of several applies."""
    assert chat(**fields).client_limits == limits


def test_unknown_effort_ranks_lowest() -> None:
    """An unknown word never ranks higher than an effort, and case does not matter."""
    assert all(effort_rank("enormous") <= effort_rank(effort) for effort in EFFORTS)
    assert [effort_rank(effort.upper()) for effort in EFFORTS] == list(range(len(EFFORTS)))


@pytest.mark.parametrize(
    ("fields", "limits"),
    [
        ({}, ClientLimits()),
        ({"max_tokens": 5}, ClientLimits(max_tokens=5)),
        ({"thinking_token_budget": 5}, ClientLimits(thinking=5)),
        ({"thinking_token_budget": -1}, ClientLimits()),
    ],
)
def test_client_limits_of_a_completion(fields: dict[str, Any], limits: ClientLimits) -> None:
    """A legacy completion has two ways to limit its length."""
    assert (
        parse_completion(json.dumps({"model": "m", "prompt": "p"} | fields).encode()).client_limits == limits
    )


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([], ""),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "b"),
        ([{"role": "system", "content": "only"}], "only"),
        ([{"role": "user", "content": None}], ""),
        (
            [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}, "y"]}],
            "x\n\ny",
        ),
    ],
)
def test_prompt_is_the_last_question(messages: list[Any], prompt: str) -> None:
    """The head predicts for the last user message, or for the last message if no user wrote one."""
    assert parse_chat(json.dumps({"model": "m", "messages": messages}).encode()).prompt == prompt


def test_conversation_is_the_end_of_all_messages() -> None:
    """Rules search the texts of all roles, and only the last 20,000 characters of a long conversation."""
    messages = [{"role": "system", "content": "first"}, {"role": "user", "content": "x" * 19_999}]
    conversation = parse_chat(json.dumps({"model": "m", "messages": messages}).encode()).conversation

    assert conversation == "\n" + "x" * 19_999


@pytest.mark.parametrize(
    ("prompt", "read"), [("a", "a"), (["a", "b"], "a\nb"), ([1, 2], ""), ([[1], [2]], ""), (None, "")]
)
def test_prompt_of_a_completion(prompt: Any, read: str) -> None:
    """Several texts are joined; token ids have no text to predict for."""
    assert parse_completion(json.dumps({"model": "m", "prompt": prompt}).encode()).prompt == read


def test_flags() -> None:
    """Streaming, tools and the request for usage are read; null and an empty list mean no."""
    asked = chat(stream=True, tools=[{"type": "function"}], stream_options={"include_usage": True})
    unasked = chat(stream=None, tools=[], stream_options=None)

    assert (asked.stream, asked.tools, asked.wants_usage) == (True, True, True)
    assert (unasked.stream, unasked.tools, unasked.wants_usage) == (False, False, False)


@pytest.mark.parametrize(("n", "choices"), [(None, 1), (1, 1), (4, 4), (0, 1), (-3, 1)])
def test_answers_asked_for(n: int | None, choices: int) -> None:
    """The number of answers is `n`, and 1 for an invalid `n`, which the backend refuses."""
    assert chat(n=n).choices == choices
    assert chat(best_of=n).choices == choices


def test_excluded_reasoning() -> None:
    """`reasoning.exclude` sets vLLM's `include_reasoning`, unless the client set that field itself."""
    assert bytes(chat(reasoning={"exclude": True}).fields["include_reasoning"]) == b"false"
    own = chat(reasoning={"exclude": True}, include_reasoning=True)
    assert bytes(own.fields["include_reasoning"]) == b"true"


@pytest.mark.parametrize(
    "options", ["null", '{"include_usage":false}', "{}", '{"continuous_usage_stats":true}', None]
)
def test_usage_is_asked_for(options: str | None) -> None:
    """The backend is asked for usage whether or not the client asked for it, and for nothing else."""
    given = None if options is None else Raw(options.encode())
    assert json.loads(bytes(with_usage(given))) == {"include_usage": True}


def test_running_counts_are_asked_for() -> None:
    """For a budget, the backend is also asked for a running count in every chunk."""
    assert json.loads(bytes(with_usage(None, counts=True))) == {
        "include_usage": True,
        "continuous_usage_stats": True,
    }


def test_asking_for_usage_keeps_other_options() -> None:
    """Unknown options keep their bytes, also many of them."""
    long = b'"' + b"x" * 1000 + b'"'
    assert bytes(with_usage(Raw(b'{"x":1e-7}'))) == b'{"x":1e-7,"include_usage":true}'
    assert bytes(with_usage(Raw(b'{"x":%b}' % long))) == b'{"x":%b,"include_usage":true}' % long


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": "0"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -4}, "max_completion_tokens"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"messages": None}, "messages"),
        ({"stream": "perhaps"}, "stream"),
        ({"stream": 2}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"n": "two"}, "n"),
        ({"n": [2]}, "n"),
        ({"model": 7}, "model"),
    ],
)
def test_wrong_value_is_named(fields: dict[str, Any], param: str) -> None:
    """A wrong type or value is refused, and `param` names the field."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(chat_body(**fields))

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("parse", "body", "param"),
    [
        (parse_chat, b'{"model":"m"}', "messages"),
        (parse_chat, b'{"n":"1"}', "messages"),
    ],
)
def test_missing_field_is_named(parse: Any, body: bytes, param: str) -> None:
    """If a required field is missing, `param` names it."""
    with pytest.raises(InvalidRequest) as caught:
        parse(body)

    assert caught.value.param == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"model":"m","messages":[',
        b'{"model":"m","messages":[],"x":NaN}',
        b'{"model":"m","messages":[{"content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"content":"\xff"}]}',
        b'{"model":"m","messages":[],"x":' + b"[" * 100_000,
        b'{"model":"m","messages":[],"metadata":' + b'{"a":' * 10_000,
    ],
    ids=lambda body: str(body[:50]),
)
def test_not_json(body: bytes) -> None:
    """A body that is not JSON, or is nested too deeply, has an error of its own."""
    with pytest.raises(InvalidJson):
        parse_chat(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
read_fields = st.sampled_from(
    [*protocol.ChatBody.__struct_fields__, *protocol.CompletionBody.__struct_fields__]
)


@given(st.binary() | st.dictionaries(read_fields, json_values).map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """The parsers raise no other exceptions than InvalidRequest and InvalidJson."""
    for parse in (parse_chat, parse_completion, parse_embedding):
        try:
            parse(body)
        except InvalidRequest as error:
            assert error.body()


unread = st.text().filter(lambda name: name not in protocol.ChatBody.__struct_fields__)


@given(st.dictionaries(unread, json_values, max_size=4))
def test_fields_are_what_the_client_sent(extra: dict[str, Any]) -> None:
    """Encoding a parsed request gives the JSON that the client sent, unknown fields included."""
    sent = extra | {"model": "m", "messages": []}

    assert json.loads(protocol.encode(parse_chat(json.dumps(sent).encode()).fields)) == sent
