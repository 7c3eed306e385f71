"""Values of another type than the API's: taken as vLLM takes them, sent as they were taken, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import InvalidJson, InvalidRequest
from gateway.openai_api.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, Endpoint
from gateway.openai_api.large_requests import LARGE_BODY
from gateway.openai_api.requests import ClientLimits, Request
from tests.making import chat_body

PADDING = {"user": "u" * 100, "x": " " * LARGE_BODY}


def parsed(endpoint: Endpoint = CHAT, *, large: bool = False, **fields: Any) -> Request:
    given = {"model": "m"} | ({"prompt": "p"} if endpoint is COMPLETIONS else {"messages": []})
    return endpoint.parse(json.dumps(given | fields | (PADDING if large else {})).encode())


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        *(("max_tokens", value, b"20") for value in (20, 20.0, "20", "20.0", " 20 ", 2e1)),
        *(("n", value, b"3") for value in ("3", 3.0, "+3")),
        ("n", True, b"1"),
        ("n", None, b"null"),
        *(("stream", value, b"true") for value in (True, 1, "true", "1", "on", "YES", "t", 1.0)),
        *(("stream", value, b"false") for value in (False, 0, "false", "0", "off", "no", "F", 0.0)),
        ("max_completion_tokens", "7", b"7"),
        ("best_of", "2", b"2"),
        ("best_of", "two", None),
        ("stream_options", {"include_usage": "yes", "x": "1"}, b'{"include_usage":true,"x":"1"}'),
        ("stream_options", {"include_usage": "perhaps"}, b"{}"),
        ("stream_options", None, b"null"),
    ],
)
def test_backend_gets_what_was_understood(name: str, value: Any, sent: bytes | None, large: bool) -> None:
    """A value that is taken for another is sent as that other, so that no backend takes it for a third."""
    request = parsed(large=large, **{name: value})

    assert (bytes(request.fields[name]) if name in request.fields else None) == sent


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_values_decide_as_if_they_had_the_right_type(large: bool) -> None:
    """Length, number and streaming follow from the values that were understood."""
    request = parsed(
        large=large,
        n="3",
        max_tokens="20",
        stream="true",
        stream_options={"include_usage": 1},
        tools=[{"type": "function"}],
        metadata={"a": 1e30},
    )

    assert (request.choices, request.client_limits.max_tokens) == (3, 20)
    assert (request.stream, request.wants_usage, request.tools) == (True, True, True)
    assert bytes(request.fields["metadata"]) == b'{"a": 1e+30}'
    assert ("x" in request.fields) is large


@pytest.mark.parametrize(
    ("body", "choices", "limit"),
    [
        (b'{"model":"m","messages":[],"n":1,"n":100}', 100, None),
        (b'{"model":"m","messages":[],"n":100,"n":"1"}', 1, None),
        (b'{"model":"m","messages":[],"n":"1","\\u006e":100}', 100, None),
        (b'{"model":"m","messages":[],"max_tokens":1e3}', 1, 1000),
        (b'{"model":"m","messages":[],"max_tokens":9,"max_tokens":"5"}', 1, 5),
    ],
)
def test_the_last_of_equal_names_counts(body: bytes, choices: int, limit: int | None) -> None:
    """As in Python's parser the last value wins, and only that one is sent."""
    request = CHAT.parse(body)

    assert (request.choices, request.client_limits.max_tokens) == (choices, limit)
    assert int(bytes(request.fields.get("n", b"1"))) == choices


@pytest.mark.parametrize(
    "fields",
    [
        *({name: value} for name in ("reasoning", "thinking") for value in (5, [], {}, "", "auto", True)),
        *({"reasoning_effort": value} for value in ("", "  ", None, 5, [], "auto", "default", "Adaptive")),
        *({"chat_template_kwargs": value} for value in (None, [], "x", 5, {"enable_thinking": "perhaps"})),
        *({"metadata": value} for value in ("x", 5, [1], None)),
        *({name: value} for name in ("enable_thinking", "thinking_budget") for value in ("x", None, [])),
        {"thinking": {"type": "auto"}},
        {"thinking": {"type": "adaptive", "budget_tokens": None}},
        {"thinking": {"type": 5, "budget_tokens": "many"}},
        {"reasoning": {"effort": "", "max_tokens": -1, "enabled": "perhaps"}},
        {"reasoning": {"enabled": True}},
        {"enable_thinking": True},
        *({"chat_template_kwargs": {"thinking_mode": mode}} for mode in ("enabled", "adaptive", 5, None)),
        *({"chat_template_kwargs": {"no_think": value}} for value in (False, None, "perhaps")),
        {"thinking_budget": -1},
        {"thinking_token_budget": -7},
        {"thinking_token_budget": 0.5},
        {"tools": {}},
        {"tools": "x"},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_no_wish(fields: dict[str, Any]) -> None:
    """A wish that cannot be read limits nothing, and the field keeps its bytes."""
    request = parsed(**fields)

    assert request.client_limits == ClientLimits()
    assert request.metadata is None
    assert not request.tools
    assert all(bytes(request.fields[name]) == json.dumps(value).encode() for name, value in fields.items())


@pytest.mark.parametrize(
    ("fields", "limits"),
    [
        ({"reasoning": "high"}, ClientLimits(effort="high")),
        ({"reasoning": " low "}, ClientLimits(effort="low")),
        ({"reasoning": False}, ClientLimits(effort="none")),
        ({"reasoning": {"enabled": "false"}}, ClientLimits(effort="none")),
        ({"reasoning": {"max_tokens": "300", "effort": 5}}, ClientLimits(thinking=300)),
        ({"thinking": False}, ClientLimits(effort="none")),
        ({"thinking": "disabled"}, ClientLimits(effort="disabled")),
        ({"thinking": {"type": "Disabled"}}, ClientLimits(effort="none")),
        ({"thinking": {"type": "off", "budget_tokens": 9}}, ClientLimits(effort="none", thinking=9)),
        ({"thinking": {"type": "enabled", "budget_tokens": "1024"}}, ClientLimits(thinking=1024)),
        ({"thinking_token_budget": "77"}, ClientLimits(thinking=77)),
        ({"thinking_token_budget": 77.0}, ClientLimits(thinking=77)),
        ({"enable_thinking": False}, ClientLimits(effort="none")),
        ({"enable_thinking": "false"}, ClientLimits(effort="none")),
        ({"enable_thinking": True, "thinking_budget": 50}, ClientLimits(thinking=50)),
        ({"chat_template_kwargs": {"enable_thinking": 0}}, ClientLimits(effort="none")),
        ({"chat_template_kwargs": {"thinking_budget": "64", "x": [1]}}, ClientLimits(thinking=64)),
        ({"chat_template_kwargs": {"thinking_mode": "disabled"}}, ClientLimits(effort="none")),
        ({"chat_template_kwargs": {"thinking_mode": " Off "}}, ClientLimits(effort="none")),
        ({"chat_template_kwargs": {"no_think": 1}}, ClientLimits(effort="none")),
        ({"chat_template_kwargs": {"thinking_effort": "low"}}, ClientLimits(effort="low")),
        (
            {"chat_template_kwargs": {"thinking_effort": "high", "reasoning_effort": "low"}},
            ClientLimits(effort="low"),
        ),
        ({"reasoning_effort": "auto", "reasoning": {"effort": "low"}}, ClientLimits(effort="low")),
        ({"reasoning_effort": "enormous"}, ClientLimits(effort="enormous")),
        ({"max_tokens": 0, "max_completion_tokens": 5}, ClientLimits(max_tokens=5)),
        ({"max_tokens": 9, "max_completion_tokens": "5"}, ClientLimits(max_tokens=5)),
    ],
)
def test_wishes_of_other_types(fields: dict[str, Any], limits: ClientLimits) -> None:
    """A wish that can be read counts, whatever type it has."""
    assert parsed(**fields).client_limits == limits


def test_one_of_two_lengths_is_sent() -> None:
    """Of two lengths the newer field counts, as in vLLM. The other is not sent: a backend could obey it."""
    both = parsed(max_tokens=900, max_completion_tokens=50).fields
    empty = parsed(max_tokens=900, max_completion_tokens=None).fields

    assert ("max_tokens" in both, bytes(both["max_completion_tokens"])) == (False, b"50")
    assert bytes(empty["max_tokens"]) == b"900"


@pytest.mark.parametrize("echo", [True, 1, "true"])
def test_prompt_is_scored(echo: Any) -> None:
    """`max_tokens: 0` with `echo` scores a prompt; without, it is refused."""
    scored = parsed(COMPLETIONS, max_tokens=0, echo=echo)

    assert (scored.client_limits.max_tokens, bytes(scored.fields["max_tokens"])) == (0, b"0")
    with pytest.raises(InvalidRequest) as refused:
        parsed(COMPLETIONS, max_tokens=0, echo=False)
    assert refused.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [([1.0, 2.0], 1), ([True, 2], 1), ([["1"], [2.0]], 2), ([["1"], "a"], 2), ([], 1), (None, 1)],
)
def test_prompts_of_other_types(prompt: Any, prompts: int) -> None:
    """Token ids of any type are one prompt, and each list of them is one. The backend gets them unchanged."""
    request = parsed(COMPLETIONS, prompt=prompt)

    assert request.prompts == prompts
    assert bytes(request.fields["prompt"]) == json.dumps(prompt).encode()


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(
    ("content", "text", "media"),
    [
        (None, "", 0),
        (5, "", 1),
        ({"type": "text", "text": "a"}, "", 1),
        (["a", {"type": "text", "text": "b"}], "a\nb", 0),
        (["a", 5, None, []], "a\n\n\n", 1),
        ([{"type": "text", "text": 5}], "", 0),
        ([{"type": "other", "x": 1}], "", 1),
        ([{"type": 5, "text": "b"}], "b", 1),
    ],
)
def test_messages_of_odd_kinds(content: Any, text: str, media: int, large: bool) -> None:
    """A part that cannot be read has no text, and counts as a medium, whose tokens nothing bounds."""
    messages = [{"role": 5, "content": "z", "x": 1}, {"role": "user", "content": content}]
    request = parsed(large=large, messages=messages)

    assert (request.prompt, bool(request.media)) == (text, bool(media))
    assert bytes(request.fields["messages"]) == json.dumps(messages).encode()


def test_mistake_beside_a_readable_value() -> None:
    """An error names the field that cannot be read, and not the one before it that can."""
    with pytest.raises(InvalidRequest, match=r"Expected `int \| null`, got `str` at n") as refused:
        parsed(max_tokens="5", n="two")

    assert refused.value.param == "n"


@pytest.mark.parametrize(
    "rest",
    [b'"n":"1","metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'"n":"1","user":"\\ud800"'],
    ids=["deep", "surrogate"],
)
def test_body_that_is_not_json_beside_a_lenient_value(rest: bytes) -> None:
    """Reading leniently does not hide that a body cannot be decoded."""
    with pytest.raises(InvalidJson):
        CHAT.parse(b'{"model":"m","messages":[],' + rest + b"}")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_windows(encoding: str) -> None:
    """A body with a byte order mark, or in UTF-16, is read as Python reads it, and sent as UTF-8."""
    body = chat_body(user="ü").decode().encode(encoding)

    assert bytes(CHAT.parse(body).fields["user"]) in ('"ü"'.encode(), b'"\\u00fc"')


def test_infinity() -> None:
    """Python's clients write `-Infinity`, which the backend gets as a number that is read as the same."""
    body = b'{"model":"m","messages":[],"user":"\\"Infinity","logit_bias":{"5":-Infinity,"6":Infinity}}'
    fields = CHAT.parse(body).fields

    assert json.loads(bytes(fields["logit_bias"])) == {"5": float("-inf"), "6": float("inf")}
    assert bytes(fields["user"]) == b'"\\"Infinity"'


@pytest.mark.parametrize("body", [b"\xff\xfe{", b"{\x00", b'{"a":Infinity', b"\xef\xbb\xbf", b"Infinity"])
def test_rewritten_body_that_is_still_not_json(body: bytes) -> None:
    """What no parser takes stays an error."""
    with pytest.raises(InvalidRequest):
        CHAT.parse(body)


def test_embeddings_of_other_types() -> None:
    """Messages of an embedding request are read leniently too."""
    request = EMBEDDINGS.parse(b'{"model":"m","messages":[{"role":"user","content":5}],"dimensions":"8"}')

    assert len(request.media) == 1
    assert bytes(request.fields["dimensions"]) == b'"8"'
