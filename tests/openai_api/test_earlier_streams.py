"""A stream is read with what earlier ones have taught, and nothing is read differently for that."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai_api import repetitions
from gateway.openai_api.earlier_streams import EarlierStreams
from gateway.openai_api.known_events import parts_of
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.stream import StreamReader
from tests.making import USAGE
from tests.openai_api.test_compiled_events import framed, unframed
from tests.openai_api.test_repeated_events import CarefulReader
from tests.router_model.native.kernels import needed_kernel

TEXTS = st.sampled_from([" a", "b", "", "</think>", "<think>", 'say "hi"', "\\", "\n\n", '"usage":{', "é"])
COUNTS: list[Any] = [
    None,
    {"prompt_tokens": 5, "total_tokens": 9, "completion_tokens": 4},
    {"completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 2}},
    {"completion_tokens": 4, "prompt_tokens_details": None},
    {"completion_tokens": -1},
    {"completion_tokens": "4", "note": "x"},
    {"usage": {"completion_tokens": 4}},
]
ENDS: list[dict[str, Any]] = [
    {"index": 0, "delta": {}, "finish_reason": "stop"},
    {"index": 1, "delta": {}, "finish_reason": "length", "stop_reason": None},
    {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"},
    {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"},
    {"delta": {}, "finish_reason": "stop"},
    {"index": 0, "delta": {"usage": {"completion_tokens": 1}}, "finish_reason": None, "text": ""},
]
HOSTILE = st.sampled_from([b"", *(bytes([byte]) for byte in b'\r\n"\\{}[]0f\x00 ,:d\xe2')])


@st.composite
def shapes(draw: st.DrawFn) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What is the same in streams of one kind: the choices of each event, and what follows them."""
    count = draw(st.sampled_from(COUNTS))
    more = {} if count is None and draw(st.booleans()) else {"usage": count}
    key = draw(st.sampled_from(["content", "reasoning", "text"]))
    role: dict[str, Any] = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    found = [(role, draw(st.sampled_from([{}, {}, {"usage": None}])))] if draw(st.booleans()) else []
    for text in draw(st.lists(TEXTS, min_size=1, max_size=5)):
        found.append(({"index": 0, "delta": {key: text}, "logprobs": None, "finish_reason": None}, more))
    for choice in draw(st.lists(st.sampled_from(ENDS), max_size=2)):
        found.append((choice, draw(st.sampled_from([more, {}]))))
    if draw(st.booleans()):
        found.append(({}, {"usage": draw(st.sampled_from([USAGE, *COUNTS])), "system_fingerprint": "v"}))
    return found


def events(number: int, shape: list[tuple[dict[str, Any], dict[str, Any]]], *, spaces: bool) -> list[bytes]:
    """The events of one stream of that kind."""
    separators = (", ", ": ") if spaces else (",", ":")
    head = {"id": f"chatcmpl-{number}", "object": "chunk", "created": 1_795_790_707 + number, "model": "m"}
    chunks = [head | {"choices": [choice] if choice else []} | more for choice, more in shape]
    return [
        *(f"data: {json.dumps(chunk, separators=separators)}\n\n".encode() for chunk in chunks),
        b"data: [DONE]\n\n",
    ]


def damaged(draw: st.DrawFn, stream: bytes) -> bytes:
    """The bytes of a stream, some of which may have been replaced."""
    changed = bytearray(stream)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(changed) - 1))
        changed[at : at + 1] = draw(HOSTILE)
    return bytes(changed)


@st.composite
def streams(draw: st.DrawFn) -> list[list[bytes]]:
    """The blocks of some streams, which mostly differ in their ids and counts alone."""
    shape, found = draw(shapes()), []
    for number in range(draw(st.integers(2, 4))):
        spaces = draw(st.sampled_from([False, False, False, False, True]))
        made = events(number, shape if draw(st.booleans()) else draw(shapes()), spaces=spaces)
        whole = b"".join(made)
        changed = damaged(draw, whole)
        if changed == whole and draw(st.booleans()):
            found.append(made)
        else:
            cuts = sorted(draw(st.lists(st.integers(0, len(changed)), max_size=4)))
            blocks = [changed[begin:end] for begin, end in pairwise([0, *cuts, len(changed)])]
            found.append(list(filter(None, blocks)))
    return found


class EventReader(CarefulReader):
    """Searches event by event, as a reader does that looks for a template."""

    def _fits(self, block: bytes) -> bool:
        super()._fits(block)
        self._repetitions._trials = 0
        return False


def state(reader: StreamReader) -> tuple[Any, ...]:
    return (reader.done, reader.failed, reader.answered, reader.passed(), reader.token_usage())


@settings(max_examples=40)
@given(
    streams(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 2),
    st.sampled_from([None, True, False]),
    st.booleans(),
)
def test_earlier_streams_change_nothing(
    made: list[list[bytes]], usage: bool, counts: bool, choices: int, thinks: bool | None, by_kernel: bool
) -> None:
    """Bytes, counts and state are the same after every block as in a reader that knows of nothing."""
    earlier = EarlierStreams()
    for blocks in made:
        options: dict[str, Any] = {"strip_usage": usage, "strip_counts": counts, "choices": choices}
        fast, careful = (
            kind(earlier=earlier, lost=None if thinks is None else LostThought(expected=thinks), **options)
            for kind in (StreamReader, EventReader)
        )
        for block in blocks:
            chunks, passed = framed([block]), b""
            if by_kernel:
                with patch.object(repetitions, "kernel", needed_kernel):
                    compiled = fast.compiled()
                if compiled:
                    passed, chunks = compiled.pass_on(chunks)
            assert unframed(passed) + fast.feed(unframed(chunks)) == careful.feed(block)
            assert state(fast) == state(careful)
        assert fast.finish() == careful.finish()
        assert state(fast) == state(careful)


ROLE = ({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}, {})
ANSWER = [
    ({"index": 0, "delta": {"content": text}, "finish_reason": None}, {"usage": {"completion_tokens": 1}})
    for text in (" a", " b")
]
END = ({"index": 0, "delta": {}, "finish_reason": "stop"}, {"usage": {"completion_tokens": 2}})
LAST = ({}, {"usage": {"prompt_tokens": 3, "completion_tokens": 2}})


def test_second_stream_is_known() -> None:
    """After one stream, no event of the next is searched, and C takes it from its second text on."""
    earlier, shape = EarlierStreams(), [ROLE, *ANSWER, END, LAST]
    for number in range(2):
        reader = StreamReader(strip_usage=False, strip_counts=True, earlier=earlier)
        with patch.object(reader, "_read_other", wraps=reader._read_other) as searched:
            for event in events(number, shape, spaces=False):
                reader.feed(event)
                if number and b'" a"' in event:
                    with patch.object(repetitions, "kernel", needed_kernel):
                        assert reader.compiled() is not None
        assert searched.call_count == (0 if number else 4)
        usage = reader.token_usage()
        assert (usage.completion, usage.finish_reason, usage.complete) == (2, "stop", True)


def test_what_is_kept_is_bounded() -> None:
    """A backend whose events never repeat does not fill the memory."""
    earlier = EarlierStreams()
    for number in range(300):
        (event, _), kind = events(0, [({"index": 0, "x": number}, {})], spaces=False), b"%d" % number
        earlier.learn(event)
        parts = parts_of(event)
        assert parts is not None
        assert earlier.said(parts) is not None
        reader = StreamReader(strip_usage=True, earlier=earlier)
        reader.feed(b"".join(events(0, ANSWER, spaces=False)).replace(b'"model":"m"', b'"model":"%b"' % kind))
    assert len(earlier._said) <= 256
    assert len(earlier._templates) <= 64
