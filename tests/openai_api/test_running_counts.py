"""Token counts that a backend sends in every chunk of a stream, or only beside the last choice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai_api.stream import StreamReader
from tests.making import USAGE, event


def running(count: int | None, index: int = 0, **fields: Any) -> dict[str, Any]:
    """A chunk with one delta and the tokens of its choice so far, as vLLM sends it."""
    details = {"reasoning_tokens": 0}
    usage = {"prompt_tokens": 5, "completion_tokens": count, "completion_tokens_details": details}
    choice = {"index": index, "delta": {"content": 'a,"usage":{} b'}}
    return {"choices": [choice], "usage": None if count is None else usage} | fields


def test_running_counts_that_the_client_asked_for_are_kept() -> None:
    """Running counts that the client asked for are forwarded, and the last one is the usage."""
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
def test_running_counts_that_the_client_did_not_ask_for_are_removed(spaced: bool) -> None:
    """Running counts that only the gateway asked for are removed, and the rest of the event stays."""
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
    """If no running count has a number, deltas are counted, so that a complete stream is never free."""
    reader = StreamReader(strip_usage=True, strip_counts=True)
    reader.feed(event(running(1) | {"usage": usage}) + b"data: [DONE]\n\n")

    assert (reader.token_usage().completion, reader.token_usage().source) == (1, "counted")


def test_running_counts_beside_chunks_without() -> None:
    """Chunks without a count do not assign counts to the wrong choices."""
    reader = StreamReader(strip_usage=True, strip_counts=True)
    reader.feed(b"".join(map(event, [running(4, 0), {"choices": running(0, 2)["choices"]}, running(6, 1)])))

    assert reader.passed() == 10


def test_unseen_tokens_are_added_to_deltas_only() -> None:
    """Tokens that the backend does not send are added to the deltas; a running count includes them."""
    reader = StreamReader(strip_usage=True, strip_counts=True)
    reader.feed(event(running(500)))

    assert (reader.passed(unseen=400), reader.passed(unseen=900)) == (500, 901)


def test_running_counts_of_several_choices() -> None:
    """A running count of vLLM covers one choice, so the usage of a broken stream is their sum."""
    chunks = [running(4, 0), running(6, 1), running(9, 0), running(5, 2)]
    reader = StreamReader(strip_usage=True, strip_counts=True, prompts=3)
    reader.feed(b"".join(map(event, chunks)))

    assert (reader.token_usage().completion, reader.token_usage().source) == (20, "counted")
    assert reader.token_usage().prompt is None  # each count names its own prompt only


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_usage_beside_the_last_choice(wanted: bool, at_once: bool) -> None:
    """Usage that comes only beside the last choice is read, and sent to a client that asked for usage."""
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
    """If each choice has its own usage, the client gets one event with the sum."""
    reader = StreamReader(strip_usage=False, strip_counts=True)
    forwarded = reader.feed(event(running(4, 0)) + event(running(6, 1)) + b"data: [DONE]\n\n")
    with_usage = StreamReader(strip_usage=False, strip_counts=True)
    own = event({"choices": [], "usage": USAGE})

    assert forwarded.count(b'"usage"') == forwarded.count(b'"completion_tokens":10') == 1
    assert with_usage.feed(event(running(4)) + own + b"data: [DONE]\n\n").count(b'"usage"') == 1


def test_choices_that_do_not_begin_with_their_index() -> None:
    """The counts of several choices are told apart, wherever a backend writes their index."""
    chunks = [running(count, index) for count in range(1, 13) for index in (0, 1)]
    for chunk in chunks:
        chunk["choices"] = [dict(reversed(choice.items())) for choice in chunk["choices"]]
    for blocks in ([event(chunk) for chunk in chunks], [b"".join(event(chunk) for chunk in chunks)]):
        reader = StreamReader(strip_usage=True, strip_counts=True, choices=2)
        for block in blocks:
            reader.feed(block)

        assert reader.passed() == 24
