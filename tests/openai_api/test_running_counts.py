"""Token counts that come in every chunk of a stream, or beside its last choice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai_api.stream import StreamReader
from tests.making import USAGE, event


def running(count: int | None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """A chunk with one delta of a choice and the tokens of that choice so far, as vLLM sends them."""
    details = {"reasoning_tokens": 0}
    usage = {"prompt_tokens": 5, "completion_tokens": count, "completion_tokens_details": details}
    choice = {"index": index, "delta": {"content": 'a,"usage":{} b'}}
    return {"choices": [choice], "usage": None if count is None else usage} | fields


def test_running_counts_that_the_client_asked_for_are_kept() -> None:
    """Usage in every chunk, as a client may ask of vLLM, is forwarded, and the last of it counts."""
    events = b"".join(event(running(count)) for count in (1, 2, None))
    reader = StreamReader(strip_usage=False)

    assert reader.feed(events) == events
    assert (reader.token_usage().source, reader.token_usage().completion, reader.token_usage().prompt) == (
        "counted",
        3,
        5,
    )
    assert reader.feed(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"
    assert (reader.token_usage().source, reader.token_usage().completion) == ("backend", 2)


@pytest.mark.parametrize("spaced", [False, True])
def test_running_counts_of_our_own_are_left_out(spaced: bool) -> None:
    """A running count asked for on our own account is taken out of its event, and of nothing else."""
    bare = {"choices": running(0)["choices"]}
    first = running(7) | {"prompt_text": None}  # vLLM's first chunk names other things after the usage
    separators = (", ", ": ") if spaced else (",", ":")
    with_counts, without = (
        b"".join(b"data: %s\n\n" % json.dumps(chunk, separators=separators).encode() for chunk in chunks)
        for chunks in ([first, running(9), bare], [bare | {"prompt_text": None}, bare, bare])
    )
    reader = StreamReader(strip_usage=True, strip_counts=True)

    assert reader.feed(with_counts) == without
    assert (reader.token_usage().completion, reader.passed()) == (9, 9)


@pytest.mark.parametrize("usage", [{}, {"completion_tokens": -5}, {"completion_tokens": "x"}])
def test_running_counts_that_say_nothing(usage: dict[str, Any]) -> None:
    """Where no running count names a number, the deltas count, and a stream with an end is never free."""
    reader = StreamReader(strip_usage=True, strip_counts=True)
    reader.feed(event(running(1) | {"usage": usage}) + b"data: [DONE]\n\n")

    assert (reader.token_usage().completion, reader.token_usage().source) == (1, "counted")


def test_running_counts_beside_chunks_without() -> None:
    """Chunks without a count do not shift the counts to other choices."""
    reader = StreamReader(strip_usage=True, strip_counts=True)
    reader.feed(b"".join(map(event, [running(4, 0), {"choices": running(0, 2)["choices"]}, running(6, 1)])))

    assert reader.passed() == 10


def test_what_is_not_sent_is_no_more_than_what_is_counted() -> None:
    """Tokens that may be hidden are added to the deltas; a running count holds them already."""
    reader = StreamReader(strip_usage=True, strip_counts=True)
    reader.feed(event(running(500)))

    assert (reader.passed(unseen=400), reader.passed(unseen=900)) == (500, 901)


def test_running_counts_of_several_choices() -> None:
    """vLLM's running counts are each choice's own: what a cut stream has cost is their sum."""
    chunks = [running(4, 0), running(6, 1), running(9, 0), running(5, 2)]
    reader = StreamReader(strip_usage=True, strip_counts=True, prompts=3)
    reader.feed(b"".join(map(event, chunks)))

    assert (reader.token_usage().completion, reader.token_usage().source) == (20, "counted")
    assert reader.token_usage().prompt is None  # each count names its own prompt only


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_usage_beside_the_last_choice(wanted: bool, at_once: bool) -> None:
    """A backend that reports its usage in its last chunk only is heard, also by a client that asked."""
    bare = {"id": "c", "choices": running(0)["choices"]}
    events = [event(bare), event(bare | {"usage": USAGE}), b"data: [DONE]\n\n"]
    reader = StreamReader(strip_usage=not wanted, strip_counts=True)
    forwarded = b"".join(map(reader.feed, [b"".join(events)] if at_once else events))

    first, second, *own, end = forwarded.removesuffix(b"\n\n").split(b"\n\n")
    assert [first, second, end] == [events[0].strip(), events[0].strip(), events[2].strip()]
    said = [json.loads(one.removeprefix(b"data: ")) for one in own]
    assert said == ([{"id": "c", "choices": [], "usage": USAGE}] if wanted else [])
    assert reader.token_usage().completion == 42


def test_usage_beside_the_last_of_each_choice() -> None:
    """Where each choice has its own usage, the client is told the sum, and once only."""
    reader = StreamReader(strip_usage=False, strip_counts=True)
    forwarded = reader.feed(event(running(4, 0)) + event(running(6, 1)) + b"data: [DONE]\n\n")
    with_usage = StreamReader(strip_usage=False, strip_counts=True)
    own = event({"choices": [], "usage": USAGE})

    assert forwarded.count(b'"usage"') == forwarded.count(b'"completion_tokens":10') == 1
    assert with_usage.feed(event(running(4)) + own + b"data: [DONE]\n\n").count(b'"usage"') == 1
