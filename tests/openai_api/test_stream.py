"""Reading of streams that the network cuts at any byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.openai_api.stream import StreamReader
from gateway.openai_api.usage import TokenUsage
from tests.making import USAGE, event

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
"""Texts that a model may write and that look like the protocol around them."""

REASONING = (("reasoning",), ("reasoning_content",), ("reasoning", "reasoning_content"))


@dataclass(frozen=True)
class Stream:
    """A stream as a backend sends it, and what the reader should find in it."""

    events: list[bytes]
    usage: int | None
    """The position of the event that carries nothing but usage."""
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
    """Streams in compact or spaced JSON, with LF or CRLF, with comments between events and traps in texts."""
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
    """The bytes in pieces, cut at any byte."""
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)]) if b > a]


@given(st.data(), streams(), st.booleans())
def test_any_split_reads_the_same(data: st.DataObject, stream: Stream, strip: bool) -> None:
    """Wherever the network cuts a stream, the same bytes are forwarded and the same tokens counted."""
    at_once, in_pieces = StreamReader(strip_usage=strip), StreamReader(strip_usage=strip)

    forwarded = b"".join(in_pieces.feed(piece) for piece in data.draw(split(stream.bytes)))

    assert forwarded == at_once.feed(stream.bytes)
    assert in_pieces.token_usage() == at_once.token_usage()
    assert (in_pieces.done, in_pieces.failed) == (at_once.done, at_once.failed) == (True, False)


@given(streams())
def test_forwards_byte_for_byte(stream: Stream) -> None:
    """A client that asked for usage gets exactly what the backend sent."""
    assert StreamReader(strip_usage=False).feed(stream.bytes) == stream.bytes


@given(streams())
def test_strips_the_usage_event_alone(stream: Stream) -> None:
    """A client that did not ask for usage gets all events except the one that carries nothing else."""
    assert StreamReader(strip_usage=True).feed(stream.bytes) == b"".join(stream.stripped)


@given(st.data(), streams(), st.booleans())
def test_never_half_an_event(data: st.DataObject, stream: Stream, strip: bool) -> None:
    """The bytes forwarded so far always end where an event ends."""
    reader, sent = StreamReader(strip_usage=strip), 0
    kept = stream.stripped if strip else stream.events
    ends = {0, *accumulate(map(len, kept))}

    for piece in data.draw(split(stream.bytes)):
        sent += len(reader.feed(piece))
        assert sent in ends


@given(streams())
def test_usage(stream: Stream) -> None:
    """The backend's count is used if there is one, else one token per delta; no text is read as protocol."""
    reader = StreamReader(strip_usage=True)
    reader.feed(stream.bytes)
    usage, passed = reader.token_usage(), stream.visible + stream.reasoning

    if stream.usage is not None:
        assert (usage.source, usage.prompt, usage.completion) == ("backend", 7, 42)
        assert usage.reasoning == (round(42 * stream.reasoning / passed) if stream.reasoning else None)
    elif passed:
        assert (usage.source, usage.completion, usage.reasoning) == ("counted", passed, stream.reasoning)
    else:
        assert (usage.source, usage.completion) == ("none", None)
    assert usage.finish_reason == stream.finish
    ended_inside = stream.finish == "stop" and stream.reasoning > 0
    assert usage.truncated is (not stream.visible and (stream.finish == "length" or ended_inside))


@given(st.data(), streams())
def test_done_only_at_the_end_mark(data: st.DataObject, stream: Stream) -> None:
    """A stream cut before its end mark is not done, even if its text contains the mark."""
    reader = StreamReader(strip_usage=False)
    reader.feed(stream.bytes[: data.draw(st.integers(0, len(stream.bytes) - 1))])

    assert not reader.done


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n\n", b"data: ", b'{"usage":{', b"\r\n\r\n"])))
def test_garbage_passes(pieces: list[bytes]) -> None:
    """Bytes that are not events are forwarded or held back, but never changed, and never raise an error."""
    reader = StreamReader(strip_usage=False)
    forwarded = b"".join(map(reader.feed, pieces))

    assert b"".join(pieces).startswith(forwarded)
    assert reader.token_usage()


def test_event_without_end_is_forwarded_in_pieces() -> None:
    """An event that never ends is forwarded in pieces, so that a backend cannot fill the memory."""
    reader = StreamReader(strip_usage=True)
    forwarded = [reader.feed(b"x" * 400_000) for _ in range(9)]

    assert [len(block) for block in forwarded] == [0, 0, 1_200_000] * 3


def test_other_event_without_choices_is_kept() -> None:
    """An event without choices and without usage of its own is forwarded."""
    other = event({"choices": [], "prompt_filter_results": [{"usage": {"completion_tokens": 3}}]})
    reader = StreamReader(strip_usage=True)

    assert reader.feed(other) == other
    assert reader.token_usage() == TokenUsage()


def test_error_inside_a_stream() -> None:
    """An error that the backend reports inside the stream is noticed and forwarded."""
    broken = event({"error": {"message": "engine died", "code": 500}})
    reader = StreamReader(strip_usage=True)

    assert reader.feed(broken) == broken
    assert (reader.failed, reader.done) == (True, False)


def test_counts_every_kind_of_text() -> None:
    """Completion texts and arguments of tool calls count as deltas; nulls and empty texts do not."""
    reader = StreamReader(strip_usage=True)
    reader.feed(event({"choices": [{"text": "a"}]}) + event({"choices": [{"text": ""}]}))
    call = {"function": {"name": "f", "arguments": "{"}}
    reader.feed(event({"choices": [{"delta": {"tool_calls": [call], "content": None}}]}))

    assert (reader.token_usage().completion, reader.token_usage().source) == (2, "counted")
