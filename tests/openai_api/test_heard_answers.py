"""The text of an answer is collected as it passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openai_api.heard_answers import MOST_HEARD, HeardAnswer
from tests.making import event


def chunk(**delta: Any) -> bytes:
    return event({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def whole(**message: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": message}]}).encode()


def heard(*blocks: bytes) -> HeardAnswer:
    answer = HeardAnswer()
    for block in blocks:
        answer.events(block)
    return answer


@given(st.lists(st.text()), st.integers(1, 3))
def test_stream_and_whole_answer_are_the_same(parts: list[str], glue: int) -> None:
    """However many events come at once."""
    events = [
        chunk(role="assistant", content=""),
        *(chunk(content=part) for part in parts),
        b"data: [DONE]\n\n",
    ]
    blocks = [b"".join(events[at : at + glue]) for at in range(0, len(events), glue)]
    answer = HeardAnswer()
    answer.whole(whole(content="".join(parts)))
    assert heard(*blocks).text() == answer.text()


def test_thoughts_are_left_out() -> None:
    """Those that are sent apart, and those in the answer."""
    apart = heard(chunk(reasoning="hm"), chunk(reasoning_content="hm"), chunk(content="4"))
    assert apart.text() == "4"
    answer = HeardAnswer()
    answer.whole(whole(content="<think>hm</think>4"))
    assert answer.text() == "4"


def test_calls_of_tools() -> None:
    answer = heard(chunk(tool_calls=[{"index": 0, "function": {"name": "f"}}]))
    assert answer.text() == ""
    assert answer.calls_tools


def test_usage_and_comments_say_nothing() -> None:
    usage = event({"id": "c", "choices": [], "usage": {"completion_tokens": 1}})
    assert heard(b": keep-alive\n\n", chunk(content="a"), usage, b"data: [DONE]\n\n").text() == "a"


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b'{"choices":[]}', b'{"choices":3}', b"\xff{"])
def test_what_is_no_answer(body: bytes) -> None:
    answer = HeardAnswer()
    answer.whole(body)
    assert answer.text() is None
    assert heard(b"data: " + body + b"\n\n").text() is None


def test_memory_is_bounded() -> None:
    """A long answer is not kept, nor is what comes after."""
    answer = heard(*[chunk(content="x" * 100_000)] * 7)
    assert answer.text() is None
    assert answer._texts == []
    answer = HeardAnswer()
    answer.whole(whole(content="x" * MOST_HEARD))
    assert answer.text() is None
