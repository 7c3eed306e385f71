"""A thought in the answer of a stream is noticed, and counted as what it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai_api import lost_thoughts
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.stream import StreamReader
from gateway.openai_api.usage import TokenUsage


def events(deltas: list[str], field: str = "content", finish: str = "stop") -> list[bytes]:
    chunks = [{"choices": [{"index": 0, "delta": {field: text}, "finish_reason": None}]} for text in deltas]
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    made = [json.dumps(chunk, separators=(",", ":")).encode() for chunk in [*chunks, last]]
    return [b"data: " + chunk + b"\n\n" for chunk in made] + [b"data: [DONE]\n\n"]


def usage_of(stream: list[bytes], *, expected: bool = True, glued: bool = False) -> TokenUsage:
    reader = StreamReader(strip_usage=True, lost=LostThought(expected=expected))
    for block in [b"".join(stream)] if glued else stream:
        assert reader.feed(block) == block
    return reader.token_usage()


@pytest.mark.parametrize("glued", [False, True])
@pytest.mark.parametrize(
    ("deltas", "mark", "answer"),
    [
        (["<think>", "\n", "so", "</think>", "\n\n", "4", "2"], "<think>", 2),
        (["<th", "ink>so", " it", "</think>42"], "<think>", 1),
        (["Okay", ", so", "\n</think>", "\n\n4", "2"], "</think>", 2),
        (["analysis", "We need", " it.", "assistant", "final", "42"], "analysis", 1),
        (
            ["<|channel|>analysis<|message|>", "We", "<|channel|>final<|message|>", "42"],
            "<|channel|>analysis",
            1,
        ),
        (["[THINK]", "so", "[/THINK]", "42"], "[THINK]", 1),
        (["◁think▷", "so", "◁/think▷", "42"], "◁think▷", 1),
        (["<|channel>", "thought\n", "so", "<channel|>", "42"], "<|channel>thought", 1),
        (
            ["Here is", " my thought", " process:", " a", " Here is my response:", " 42"],
            "Here is my thought process:",
            1,
        ),
        (["<think>", "so", " it", "</", "think", ">", "42"], "<think>", 1),
        (["a", "</", "think", ">", "\n\n", "4", "2"], "</think>", 2),
        (
            ["Here", " is my thought process:", " a", " Here", " is", " my", " response", ":", " 42"],
            "Here is my thought process:",
            1,
        ),
        (list("<think>so</think>42"), "<think>", 2),
        (["<think>", "so", " it", " goes"], "<think>", 0),
    ],
)
def test_thought_in_the_answer(deltas: list[str], mark: str, answer: int, glued: bool) -> None:
    """The mark is named, and the thought counts as reasoning. An answer that is all thought is none."""
    usage = usage_of(events(deltas), glued=glued)
    filled = [delta for delta in deltas if delta]

    assert usage.lost_mark == mark
    assert usage.completion == len(filled)
    assert usage.truncated is (answer == 0)
    assert usage.reasoning is not None
    assert len(filled) - usage.reasoning in {answer, answer + deltas.count("\n\n")}


@pytest.mark.parametrize(
    "deltas",
    [
        ["The", " tag `", "</think>", "` ends a thought."],
        ["", "Hello", " <think>"],
        ["analysis", " of", " it"],
        ["a < b", " </think"],
        ["Here is", " my recipe"],
    ],
)
def test_answer_without_a_thought(deltas: list[str]) -> None:
    """An answer that speaks of such marks is an answer."""
    usage = usage_of(events(deltas))

    assert (usage.lost_mark, usage.reasoning, usage.truncated) == (None, 0, False)


def test_reasoning_shows_that_the_parser_works() -> None:
    """Once reasoning has passed as such, the answer is not searched."""
    usage = usage_of(events(["so"], "reasoning")[:1] + events(["<think>", "</think>", "42"]))

    assert (usage.lost_mark, usage.reasoning) == (None, 1)


def test_only_a_thought_that_was_asked_for_is_looked_for_at_length() -> None:
    """At a tier without thinking, the beginning of the answer alone decides."""
    assert usage_of(events(["Okay", "</think>", "42"]), expected=False).lost_mark is None
    assert usage_of(events(["<think>", "</think>", "42"]), expected=False).lost_mark == "<think>"


@pytest.mark.parametrize(
    ("field", "finish", "truncated"),
    [
        ("reasoning", "stop", True),
        ("reasoning_content", "length", True),
        ("reasoning", "tool_calls", False),
        ("content", "stop", False),
    ],
)
def test_end_inside_the_thought(field: str, finish: str, truncated: bool) -> None:
    """A model that ends inside its thought has lost its answer, like one that the limit has cut."""
    assert usage_of(events(["so", " it"], field, finish)).truncated is truncated


def test_empty_answer_without_a_thought() -> None:
    """A model that has nothing to say has lost nothing."""
    assert not usage_of(events([""])).truncated


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4), st.booleans())
def test_texts_of_deltas(deltas: list[str], ascii_only: bool) -> None:
    """Texts are read as JSON writes them, with and without escapes."""
    texts = [json.dumps(delta, ensure_ascii=ascii_only).encode() for delta in deltas]
    block = b"".join(b'data: {"choices":[{"delta":{"content":%b}}]}\n\n' % text for text in texts)

    assert lost_thoughts._texts(block) == deltas
