"""Events that repeat a template are read exactly as those that are searched and parsed one by one."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.openai_api.deltas import COMPACT, SPACED
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.repeated_events import EventTemplate, template_of
from gateway.openai_api.stream import StreamReader
from tests.making import USAGE, event
from tests.openai_api.test_stream import TRAPS

WORDS = (*(f" word{number}" for number in range(9)), *TRAPS)
TEXTS = st.sampled_from(
    [*WORDS, "", 'a"},"logprobs":null', "\\", '\\"', "</think>\n", "Hello <", "[DONE]", "{"]
)
DELTAS: list[Any] = [
    lambda text: {"delta": {"content": text}},
    lambda text: {"delta": {"reasoning": text}},
    lambda text: {"text": text},
    lambda text: {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}},
    lambda text: {"delta": {"reasoning": text, "reasoning_content": text}},
]
COUNTS: list[Any] = [
    lambda count: {},
    lambda count: {"usage": None},
    lambda count: {"usage": {"prompt_tokens": 5, "completion_tokens": count}},
    lambda count: {"usage": {"completion_tokens": count, "details": {"reasoning_tokens": 1}}, "x": "y"},
    lambda count: {"usage": {"completion_tokens": count, "a": {"b": {"c": 1}}}},
]
SEPARATORS = st.sampled_from([(",", ":"), (",", ":"), (", ", ": "), (" , ", " : ")])


@st.composite
def events(draw: st.DrawFn) -> list[bytes]:
    """The events of a stream that mostly repeat each other, and now and then do not."""
    separators, end = draw(SEPARATORS), draw(st.sampled_from(["\n\n", "\n\n", "\n\n", "\r\n\r\n"]))
    delta, count = draw(st.sampled_from(DELTAS)), draw(st.sampled_from(COUNTS))
    chunks: list[dict[str, Any]] = []
    for number, text in enumerate(draw(st.lists(TEXTS, min_size=2, max_size=9)), 1):
        choice = {"index": 0} | delta(text) | {"logprobs": None, "finish_reason": None}
        chunks.append({"id": "c", "choices": [choice]} | count(number))
    for odd in draw(st.lists(st.sampled_from(["stop", "index", "delta", "error", "usage"]), max_size=2)):
        chunk = json.loads(json.dumps(draw(st.sampled_from(chunks))))
        if chunk.get("choices"):
            changes = {"stop": {"finish_reason": "stop"}, "index": {"index": 1}}
            chunk["choices"][0] |= changes.get(odd, draw(st.sampled_from(DELTAS))("x"))
        chunk = {"error": {"message": "m"}} if odd == "error" else chunk
        chunk = {"choices": [], "usage": USAGE} if odd == "usage" else chunk
        chunks.insert(draw(st.integers(0, len(chunks))), chunk)
    dumped = ["data: " + json.dumps(chunk, separators=separators) for chunk in chunks]
    return [(text + end).encode() for text in [*dumped, "data: [DONE]"]]


class CarefulReader(StreamReader):
    """Reads no event by a template, and none as one of an earlier stream."""

    def _fits(self, block: bytes) -> bool:
        self._repetitions._template, self._repetitions._trials = None, 1_000
        return False

    def _read_known(self, event: bytes) -> None:
        return None


@settings(max_examples=60)
@given(st.data(), events(), st.booleans(), st.booleans(), st.sampled_from([None, True, False]))
def test_templates_change_nothing(
    data: st.DataObject, stream: list[bytes], usage: bool, counts: bool, thinks: bool | None
) -> None:
    """Bytes, counts and state are the same after every block, whether or not templates are used."""
    readers = [
        kind(
            strip_usage=usage,
            strip_counts=counts,
            lost=None if thinks is None else LostThought(expected=thinks),
        )
        for kind in (StreamReader, CarefulReader)
    ]
    whole = b"".join(stream)
    if data.draw(st.booleans()):
        blocks = stream
    else:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
        blocks = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)]) if b > a]

    for block in blocks:
        fast, careful = (reader.feed(block) for reader in readers)
        assert fast == careful
        fast_state, careful_state = (
            (reader.done, reader.failed, reader.answered, reader.passed(), reader.token_usage())
            for reader in readers
        )
        assert fast_state == careful_state
    fast, careful = (reader.finish() for reader in readers)
    assert fast == careful


def chunk(text: str, count: int = 1) -> dict[str, Any]:
    choice = {"index": 3, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c", "choices": [choice], "usage": {"completion_tokens": count}}


def made(value: dict[str, Any]) -> EventTemplate:
    template = template_of(event(value), SPACED)
    assert template is not None
    return template


def test_events_at_the_beginning() -> None:
    """A block is read up to the first event that does not repeat the template."""
    first, second, other = event(chunk("", 2)), event(chunk(" b", 3)), event({"id": "d"})
    bare = [
        event({name: value for name, value in chunk(text).items() if name != "usage"}) for text in ("", " b")
    ]
    template = made(chunk("a"))

    end, deltas, kept, last, count = template.read(first + second + other, strip=True)

    assert (end, deltas, template.index) == (len(first + second), 1, b"3")
    assert b"".join(kept) == b"".join(bare)
    assert (last, count) == (second, b'{"completion_tokens": 3}')


def test_what_is_no_repetition() -> None:
    """Text that ends its string early, another key, or a count that is no object, is not passed over."""
    template, ours = made(chunk("a")), event(chunk("@"))
    for text in (b'"}, "x": {"y": "', b'", "x": "', b"\n", b"a\\", b'\\\\", "x": "'):
        assert template.read(ours.replace(b"@", text), strip=True)[0] == 0
    for count in (b'1}, "x": {"y": 1}}', b'1}, "x": "y"}', b'{"y": 1}}}', b"1}} "):
        assert template.read(ours.replace(b"1}}", count), strip=True)[0] == 0
    escaped = ours.replace(b"@", b'say \\"hi\\" \\n')
    assert template.read(escaped, strip=True)[:2] == (len(escaped), 1)


def test_what_becomes_no_template() -> None:
    """An event with a finish reason, an error, several texts or no text says something by itself."""
    ended = chunk("a")
    ended["choices"] = [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]
    two = {"choices": [{"delta": {"content": "a", "reasoning": "b"}}]}
    for value in (ended, two, {"choices": []}, {"error": 1, "choices": [{"text": "a"}]}):
        assert template_of(event(value), SPACED) is None
    assert template_of(event(chunk("a")), COMPACT) is None
    assert template_of(b"event: x\n" + event(chunk("a")), SPACED) is None
