"""Whole responses of thinking models end at the client's stop strings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai_api.stop_strings import StopStrings
from gateway.openai_api.stopped_responses import cut_response, read_stopped

USAGE = {"prompt_tokens": 3, "completion_tokens": 40, "total_tokens": 43}


def response(*messages: dict[str, Any], **fields: Any) -> bytes:
    choices = [
        {"index": index, "message": message, "finish_reason": "length", "stop_reason": None} | fields
        for index, message in enumerate(messages)
    ]
    return (
        json.dumps({"id": "c1", "x": 1.50, "choices": choices, "usage": USAGE})
        .encode()
        .replace(b"1.5", b"1.50")
    )


def cut(message: dict[str, Any], *strings: str, **stops: Any) -> Any:
    return json.loads(cut_response(response(message), StopStrings(strings, **stops)))["choices"][0]


@pytest.mark.parametrize(
    "logprobs",
    [{"content": 5}, {"content": [{"token": "a", "bytes": [-1]}]}, {"content": [{"token": 5}]}, [1]],
)
def test_odd_log_probabilities(logprobs: Any) -> None:
    """Log probabilities that cannot be read stay as they are, and the answer is cut."""
    body = response({"content": "one. two"}, logprobs=logprobs)
    (choice,) = json.loads(cut_response(body, StopStrings((".",))))["choices"]

    assert (choice["message"]["content"], choice["logprobs"]) == ("one", logprobs)


def test_no_choices() -> None:
    """A response without choices passes."""
    body = response()
    assert cut_response(body, StopStrings((".",), min_tokens=3)) == body


@pytest.mark.parametrize(
    ("content", "shown", "stop"),
    [
        ("one. two. END", "one", "."),
        ("one END. two", "one ", "END"),
        ("\n\n42\n\nso", "\n\n42", "\n\n"),
        ("END", "", "END"),
        ("<think>a. END</think>\n\nb END", "<think>a. END</think>\n\nb ", "END"),
        ("a. END</think>b.", "a. END</think>b", "."),
    ],
)
def test_answer_ends_before_the_string(content: str, shown: str, stop: str) -> None:
    """The answer is cut at the first string; a thought without a parser is not searched."""
    choice = cut({"content": content}, ".", "END", "\n\n")

    assert choice["message"]["content"] == shown
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)


def test_thought_is_not_searched() -> None:
    """A string in the reasoning ends nothing, and its text stays as it is."""
    body = response({"reasoning": "a. b", "content": "c"}, {"reasoning_content": ".", "content": None})

    assert cut_response(body, StopStrings((".",))) is body


def test_tag_in_an_answer() -> None:
    """If the backend has taken the thought out, a tag in the answer is the answer's own."""
    choice = cut({"reasoning": "hm", "content": "close it. </think>"}, ".")

    assert choice["message"]["content"] == "close it"


def test_each_choice_is_cut_for_itself() -> None:
    """The choices without a string keep their reason, and all that does not change keeps its bytes."""
    body = response({"content": "a. b"}, {"content": "c"}, {"content": "d.", "refusal": None})
    stopped = cut_response(body, StopStrings((".",)))

    choices = json.loads(stopped)["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["a", "c", "d"]
    assert [choice["finish_reason"] for choice in choices] == ["stop", "length", "stop"]
    assert b"1.50" in stopped
    assert json.loads(stopped)["usage"] == USAGE


def test_included_string() -> None:
    """With `include_stop_str_in_output` the answer ends with the string."""
    assert cut({"content": "a.b"}, ".", included=True)["message"]["content"] == "a."


def test_tool_calls_after_the_string() -> None:
    """A tool call that follows the string would not have been generated."""
    message = cut({"content": "a.", "tool_calls": [{"id": "1"}]}, ".")["message"]

    assert message == {"content": "a"}
    assert cut({"content": "a", "tool_calls": [{"id": "."}]}, ".")["message"]["tool_calls"] == [{"id": "."}]


def test_log_probabilities() -> None:
    """Log probabilities and ids of the tokens after the string are taken out, those of the thought stay."""
    tokens = ["<think>", "a.", "</think>", "b", "·", ".", "c", "<end>"]
    entries = [{"token": token, "logprob": -1.0} for token in tokens]
    body = response(
        {"reasoning": "a.", "content": "b·.c"}, logprobs={"content": entries}, token_ids=[*range(8)]
    )
    choice = json.loads(cut_response(body, StopStrings((".",))))["choices"][0]

    assert choice["message"]["content"] == "b·"
    assert choice["logprobs"]["content"] == entries[:6]
    assert choice["token_ids"] == [*range(6)]


@pytest.mark.parametrize(
    ("tokens", "shown"), [(0, "x" * 10), (20, "x" * 10), (31, "x" * 10 + "." + "y" * 10), (50, None)]
)
def test_min_tokens_by_share_of_the_text(tokens: int, shown: str | None) -> None:
    """Where in a text a token ends is not known, so its share stands for it: 40 tokens, 42 letters."""
    content = "x" * 10 + "." + "y" * 10 + "."
    choice = cut({"reasoning": "z" * 20, "content": content}, ".", min_tokens=tokens)

    assert choice["message"]["content"] == (content if shown is None else shown)


def test_usage_is_that_of_the_backend() -> None:
    """What was generated after the string has been spent."""
    usage, body = read_stopped(response({"reasoning": "abc", "content": "d." + "x" * 9}), StopStrings((".",)))

    assert usage is not None
    assert (usage.completion, usage.finish_reason) == (40, "stop")
    assert usage.reasoning == 40 * 3 // 14 + 1
    assert json.loads(body)["choices"][0]["message"]["content"] == "d"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"choices":1}',
        b'{"choices":[7]}',
        b'{"choices":[{"message":{"content":"a.","x":]}}]}',
    ],
)
def test_bodies_of_other_shapes_pass(body: bytes) -> None:
    """What is no response of a chat is not touched."""
    assert cut_response(body, StopStrings((".",))) is body
