"""Reading of whole bodies from a backend: token usage, errors and model lists."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai_api.errors import read_error
from gateway.openai_api.responses import UsageScanner, read_usage
from gateway.openai_api.usage import TokenUsage
from tests.making import USAGE


def answer(message: dict[str, Any], usage: Any = None, finish: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage}).encode()


def detailed(reasoning: int) -> dict[str, Any]:
    details = {"reasoning_tokens": reasoning}
    return USAGE | {"completion_tokens_details": details, "prompt_tokens_details": {"cached_tokens": 5}}


COUNTED = {"prompt": 7, "completion": 42, "source": "backend", "finish_reason": "stop"}
GUESSED = COUNTED | {"reasoning": 28, "reasoning_estimated": True}
CUT = {"finish_reason": "length", "truncated": True}
LONE = {"prompt_tokens": 7}
ODD = ("completion",)


def odd(name: str) -> dict[str, Any]:
    """What is known of a count that cannot be read."""
    return {name: None, "uncounted": (name,)}


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (answer({"content": "a"}, USAGE), COUNTED),
        (answer({"content": "a"}, detailed(30)), COUNTED | {"reasoning": 30, "cached": 5}),
        (answer({"content": "a"}), {"finish_reason": "stop"}),
        (answer({"content": "aa", "reasoning": "bbbb"}, USAGE), GUESSED),
        (answer({"content": "aa", "reasoning_content": "bbbb"}, USAGE), GUESSED),
        (answer({"content": "aa", "reasoning": "bbbb"}, detailed(0)), GUESSED | {"cached": 5}),
        (answer({"content": ""}, USAGE, "length"), COUNTED | CUT),
        (answer({"content": None, "reasoning": "b"}, None, "length"), CUT),
        (answer({"content": None, "tool_calls": [{}]}, None, "length"), {"finish_reason": "length"}),
        (b'{"choices":[{"text":"a","finish_reason":"length"}]}', {"finish_reason": "length"}),
        (b'{"data":[],"usage":{"prompt_tokens":3}}', {"prompt": 3, "source": "backend"}),
        (answer({"content": "a"}, USAGE | {"prompt_tokens": -1}), COUNTED | odd("prompt")),
        (answer({"content": "b"}, LONE | {"completion_tokens": 10**400}), COUNTED | odd("completion")),
        (answer({"content": "b"}, USAGE | {"completion_tokens": "?"}), COUNTED | {"uncounted": ODD}),
    ],
)
def test_whole_answer(body: bytes, usage: dict[str, Any]) -> None:
    """An unknown or impossible count is None, and reasoning that is not reported is estimated."""
    assert read_usage(body) == TokenUsage(**usage)


@given(
    st.binary() | st.sampled_from([b"[" * 100_000, b'{"choices":null}', b"null", b'"text"', b"[]", b"\xff"])
)
def test_any_answer_is_read_or_not(body: bytes) -> None:
    """Any other body has no usage, and reading it raises nothing."""
    assert read_usage(body) in (None, TokenUsage())


@given(st.integers(-(10**20), 10**20), st.integers(-(10**20), 10**20), st.integers(0, 50), st.integers(0, 50))
def test_counts_are_never_absurd(completion: int, reasoning: int, thought: int, said: int) -> None:
    """If a broken backend reports an impossible count, it is unknown and never reaches a metric."""
    details = {"reasoning_tokens": reasoning}
    usage = {"completion_tokens": completion, "completion_tokens_details": details}
    usage = read_usage(answer({"content": "a" * said, "reasoning": "b" * thought}, usage))

    assert usage
    assert all(count is None or 0 <= count < 2**53 for count in (usage.completion, usage.reasoning))


_odd = st.sampled_from([None, "", "a", "12", 7, 7.5, True, [], ["a"], {}, {"reasoning_tokens": 3}])
_usages = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details"]), _odd
)
_messages = st.dictionaries(st.sampled_from(["content", "reasoning", "tool_calls"]), _odd)
_choices = st.fixed_dictionaries(
    {}, optional={"message": _messages | _odd, "text": _odd, "finish_reason": _odd | st.just("length")}
)
_responses = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(_choices, max_size=3) | st.none(), "usage": _usages | _odd}
)


@given(_responses)
def test_unusual_values_are_read_alike(response: dict[str, Any]) -> None:
    """One decoding of the whole reads what reading value by value does, which a BOM calls for."""
    body = json.dumps(response).encode()

    assert read_usage(body) == read_usage(b"\xef\xbb\xbf" + body)


@pytest.mark.parametrize(
    ("body", "message", "status"),
    [
        (b'{"error":{"message":"m","type":"t","param":"p","code":400}}', "m", 400),
        (b'{"object":"error","message":"m","code":400}', "m", 400),
        (b'{"error":{"message":"m","code":"bad"}}', "m", None),
        (b'{"error":"m"}', "m", None),
        (b'{"detail":"m"}', "m", None),
        (b'{"error":null}', "", None),
        (b"{}", "", None),
        (b"<html>", "", None),
        (b"[1]", "", None),
        (b'{"error":{"message":5}}', "", None),
        (b'{"error":' * 20_000, "", None),
    ],
)
def test_error_of_a_backend(body: bytes, message: str, status: int | None) -> None:
    """The error shapes of new and old vLLM and of FastAPI are read; any other has no message."""
    error = read_error(body)

    assert (error.message, error.status) == (message, status)


@given(st.lists(st.integers(0, 400)), st.sampled_from(["stop", "length"]))
def test_usage_of_a_large_response_in_any_pieces(cuts: list[int], finish: str) -> None:
    """However a response is split, its last usage is read, also if it is not the last field."""
    body = answer({"content": '"usage":{"completion_tokens":1}'}, detailed(30), finish)
    body = body[:-1] + b',"prompt_logprobs":[{"usage":null}]}'
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    scanner = UsageScanner()
    for start, end in pairwise(places):
        scanner.feed(body[start:end])

    usage = scanner.token_usage()
    assert (usage.prompt, usage.completion, usage.reasoning, usage.cached) == (7, 42, 30, 5)
    assert usage.finish_reason == finish
