"""Tokens read beside the bytes: streams cut anywhere, whole answers, errors, model lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage import StreamReader, Tally, read_answer, read_context, read_error

TRAPS = (
    '"usage":{"completion_tokens":9}',
    '{"choices": [], "usage": {"completion_tokens": 9}}',
    "data: [DONE]\n\n",
    '\n\ndata: [DONE]\n\ndata: {"error"',
    '"finish_reason":"length"',
    '"content":"x"',
    'say ": and then',
    "\\",
    '"',
    "\r\n\r\n",
    "\u2028é😀",
)
"""Text a model may write that looks like the protocol around it."""

REASONING = (("reasoning",), ("reasoning_content",), ("reasoning", "reasoning_content"))
USAGE = {"prompt_tokens": 7, "total_tokens": 49, "completion_tokens": 42}


@dataclass(frozen=True)
class Stream:
    """A stream as a backend sends it, and what a reader should find in it."""

    events: list[bytes]
    usage: int | None
    """Position of the event that carries nothing but usage."""
    visible: int
    reasoning: int
    finish: str | None

    @property
    def bytes(self) -> bytes:
        return b"".join(self.events)

    @property
    def stripped(self) -> list[bytes]:
        return [event for index, event in enumerate(self.events) if index != self.usage]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Streams in compact or spaced JSON, with LF or CRLF, comments between, and traps in the text."""
    end = draw(st.sampled_from(["\n\n", "\r\n\r\n"]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    ascii_only, names = draw(st.booleans()), draw(st.sampled_from(REASONING))
    texts = st.lists(st.sampled_from(TRAPS) | st.text(min_size=1, max_size=20), max_size=6)
    thoughts, words = draw(texts), draw(texts)
    finishes = draw(st.lists(st.sampled_from(["stop", "length", "tool_calls"]), max_size=2))
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [dict.fromkeys(names, thought) for thought in thoughts]
    deltas += [{"content": word} for word in words]
    chunks: list[dict[str, Any]] = [
        {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None}
        for delta in deltas
    ]
    chunks += [{"id": "c", "choices": [{"delta": {}, "finish_reason": reason}]} for reason in finishes]
    usage = draw(st.booleans())
    if usage:
        chunks.append({"id": "c", "choices": [], "usage": USAGE})
    events: list[str] = []
    for chunk in chunks:
        if draw(st.integers(0, 5)) == 0:
            events.append(": keep-alive")
        events.append("data: " + json.dumps(chunk, separators=separators, ensure_ascii=ascii_only))
    events.append("data: [DONE]")
    position = len(events) - 2 if usage else None
    return Stream(
        [(e + end).encode() for e in events], position, len(words), len(thoughts), [None, *finishes][-1]
    )


@st.composite
def split(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The bytes in pieces, cut anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)]) if b > a]


@given(st.data(), streams(), st.booleans())
def test_any_split_reads_the_same(data: st.DataObject, stream: Stream, strip: bool) -> None:
    """However the network cuts a stream, the same bytes are forwarded and the same tokens counted."""
    at_once, in_pieces = StreamReader(strip_usage=strip), StreamReader(strip_usage=strip)

    forwarded = b"".join(in_pieces.feed(piece) for piece in data.draw(split(stream.bytes)))

    assert forwarded == at_once.feed(stream.bytes)
    assert in_pieces.tally() == at_once.tally()
    assert (in_pieces.done, in_pieces.failed) == (at_once.done, at_once.failed) == (True, False)


@given(streams())
def test_forwards_byte_for_byte(stream: Stream) -> None:
    """A client that asked for usage gets exactly what the backend sent."""
    assert StreamReader(strip_usage=False).feed(stream.bytes) == stream.bytes


@given(streams())
def test_strips_the_usage_event_alone(stream: Stream) -> None:
    """A client that did not ask gets everything but the one event that carries nothing else."""
    assert StreamReader(strip_usage=True).feed(stream.bytes) == b"".join(stream.stripped)


@given(st.data(), streams(), st.booleans())
def test_never_half_an_event(data: st.DataObject, stream: Stream, strip: bool) -> None:
    """At every moment, what was forwarded ends where an event ends."""
    reader, sent = StreamReader(strip_usage=strip), 0
    kept = stream.stripped if strip else stream.events
    ends = {0, *accumulate(map(len, kept))}

    for piece in data.draw(split(stream.bytes)):
        sent += len(reader.feed(piece))
        assert sent in ends


@given(streams())
def test_tally(stream: Stream) -> None:
    """The backend's own count if it came, else one token for every delta; no text passes for protocol."""
    reader = StreamReader(strip_usage=True)
    reader.feed(stream.bytes)
    tally, passed = reader.tally(), stream.visible + stream.reasoning

    if stream.usage is not None:
        assert (tally.source, tally.prompt, tally.completion) == ("backend", 7, 42)
        assert tally.reasoning == (round(42 * stream.reasoning / passed) if stream.reasoning else None)
    elif passed:
        assert (tally.source, tally.completion, tally.reasoning) == ("counted", passed, stream.reasoning)
    else:
        assert (tally.source, tally.completion) == ("none", None)
    assert tally.finish_reason == stream.finish
    assert tally.truncated is (stream.finish == "length" and not stream.visible)


@given(st.data(), streams())
def test_done_only_at_the_end_mark(data: st.DataObject, stream: Stream) -> None:
    """A stream cut anywhere before its end mark is not done, whatever its text says."""
    reader = StreamReader(strip_usage=False)
    reader.feed(stream.bytes[: data.draw(st.integers(0, len(stream.bytes) - 1))])

    assert not reader.done


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n\n", b"data: ", b'{"usage":{', b"\r\n\r\n"])))
def test_garbage_passes(pieces: list[bytes]) -> None:
    """Bytes that are no events at all are passed on or held, never changed, and never break the reader."""
    reader = StreamReader(strip_usage=False)
    forwarded = b"".join(map(reader.feed, pieces))

    assert b"".join(pieces).startswith(forwarded)
    assert reader.tally()


def event(chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def test_event_without_end_is_not_kept_for_ever() -> None:
    """An event that never ends is passed on in pieces, so that a backend cannot fill our memory."""
    reader = StreamReader(strip_usage=True)
    forwarded = [reader.feed(b"x" * 400_000) for _ in range(9)]

    assert [len(block) for block in forwarded] == [0, 0, 1_200_000] * 3


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
    assert (reader.tally().source, reader.tally().completion, reader.tally().prompt) == ("counted", 3, 5)
    assert reader.feed(b"data: [DONE]\n\n") == b"data: [DONE]\n\n"
    assert (reader.tally().source, reader.tally().completion) == ("backend", 2)


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
    assert (reader.tally().completion, reader.passed()) == (9, 9)


@pytest.mark.parametrize("usage", [{}, {"completion_tokens": -5}, {"completion_tokens": "x"}])
def test_running_counts_that_say_nothing(usage: dict[str, Any]) -> None:
    """Where no running count names a number, the deltas count, and a stream with an end is never free."""
    reader = StreamReader(strip_usage=True, strip_counts=True)
    reader.feed(event(running(1) | {"usage": usage}) + b"data: [DONE]\n\n")

    assert (reader.tally().completion, reader.tally().source) == (1, "counted")


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

    assert (reader.tally().completion, reader.tally().source) == (20, "counted")
    assert reader.tally().prompt is None  # each count names its own prompt only


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
    assert reader.tally().completion == 42


def test_usage_beside_the_last_of_each_choice() -> None:
    """Where each choice has its own usage, the client is told the sum, and once only."""
    reader = StreamReader(strip_usage=False, strip_counts=True)
    forwarded = reader.feed(event(running(4, 0)) + event(running(6, 1)) + b"data: [DONE]\n\n")
    with_usage = StreamReader(strip_usage=False, strip_counts=True)
    own = event({"choices": [], "usage": USAGE})

    assert forwarded.count(b'"usage"') == forwarded.count(b'"completion_tokens":10') == 1
    assert with_usage.feed(event(running(4)) + own + b"data: [DONE]\n\n").count(b'"usage"') == 1


def test_other_event_without_choices_is_kept() -> None:
    """An event that has no choices and no usage is none of ours."""
    other = event({"choices": [], "prompt_filter_results": [{"usage": {"completion_tokens": 3}}]})
    reader = StreamReader(strip_usage=True)

    assert reader.feed(other) == other
    assert reader.tally() == Tally()


def test_error_inside_a_stream() -> None:
    """An error the backend reports inside the stream is seen, and forwarded."""
    broken = event({"error": {"message": "engine died", "code": 500}})
    reader = StreamReader(strip_usage=True)

    assert reader.feed(broken) == broken
    assert (reader.failed, reader.done) == (True, False)


def test_counts_every_kind_of_text() -> None:
    """Completions' text and arguments of tool calls are tokens too; nulls and empty texts are not."""
    reader = StreamReader(strip_usage=True)
    reader.feed(event({"choices": [{"text": "a"}]}) + event({"choices": [{"text": ""}]}))
    call = {"function": {"name": "f", "arguments": "{"}}
    reader.feed(event({"choices": [{"delta": {"tool_calls": [call], "content": None}}]}))

    assert (reader.tally().completion, reader.tally().source) == (2, "counted")


def answer(message: dict[str, Any], usage: Any = None, finish: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage}).encode()


def detailed(reasoning: int) -> dict[str, Any]:
    details = {"reasoning_tokens": reasoning}
    return USAGE | {"completion_tokens_details": details, "prompt_tokens_details": {"cached_tokens": 5}}


COUNTED = {"prompt": 7, "completion": 42, "source": "backend", "finish_reason": "stop"}
GUESSED = COUNTED | {"reasoning": 28, "reasoning_estimated": True}
CUT = {"finish_reason": "length", "truncated": True}


@pytest.mark.parametrize(
    ("body", "tally"),
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
        (answer({"content": "a"}, USAGE | {"prompt_tokens": -1}), COUNTED | {"prompt": None}),
        (answer({"reasoning": "b"}, USAGE | {"completion_tokens": 10**400}), COUNTED | {"completion": None}),
    ],
)
def test_whole_answer(body: bytes, tally: dict[str, Any]) -> None:
    """Tokens of an answer: unknown is None, a missing split is estimated, absurd counts are unknown."""
    assert read_answer(body) == Tally(**tally)


@given(
    st.binary() | st.sampled_from([b"[" * 100_000, b'{"choices":null}', b"null", b'"text"', b"[]", b"\xff"])
)
def test_any_answer_is_read_or_not(body: bytes) -> None:
    """A body that is no answer is None, and nothing is raised."""
    assert read_answer(body) in (None, Tally())


@given(st.integers(-(10**20), 10**20), st.integers(-(10**20), 10**20), st.integers(0, 50), st.integers(0, 50))
def test_counts_are_never_absurd(completion: int, reasoning: int, thought: int, said: int) -> None:
    """Whatever a broken backend reports, a count is unknown or a number that a metric can take."""
    details = {"reasoning_tokens": reasoning}
    usage = {"completion_tokens": completion, "completion_tokens_details": details}
    tally = read_answer(answer({"content": "a" * said, "reasoning": "b" * thought}, usage))

    assert tally
    assert all(count is None or 0 <= count < 2**53 for count in (tally.completion, tally.reasoning))


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
    """vLLM's, older and FastAPI's error shapes are read; anything else has no message."""
    error = read_error(body)

    assert (error.message, error.status) == (message, status)


@pytest.mark.parametrize(
    ("body", "context"),
    [
        (b'{"data":[{"id":"other","max_model_len":1},{"id":"m","max_model_len":4096}]}', 4096),
        (b'{"data":[{"id":"m"}]}', None),
        (b'{"data":[]}', None),
        (b'{"data":[{"id":"m","max_model_len":"4096"}]}', None),
        (b"not found", None),
    ],
)
def test_context_of_a_model(body: bytes, context: int | None) -> None:
    """The context of the model asked about, or None where the backend does not say."""
    assert read_context(body, "m") == context
