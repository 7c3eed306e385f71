"""Finds the deltas of a stream without parsing its JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.openai_api.counts import loose_object
from gateway.openai_api.event_stream import event_data

# The first key of an event. A space after its colon means spaced JSON, as in data: {"id": "c1", …}
_FIRST_KEY = re.compile(rb'data: ?\{ ?"[^"\\]*":( ?)(?=\S)')


class Spelling:
    """Byte patterns of string fields in one JSON style: compact, `"text":"…"`, or spaced, `"text": "…"`.

    Each field has two: of any text, and of an empty one.
    """

    def __init__(self, space: bytes) -> None:
        def opening(name: bytes) -> bytes:
            return b'"' + name + b'":' + space + b'"'

        def texts(*names: bytes) -> tuple[tuple[bytes, bytes], ...]:
            return tuple((opening(name), opening(name) + b'"') for name in names)

        self.finish = opening(b"finish_reason")
        self.count = b"," + space + b'"usage":' + space + b"{"
        self.visible = texts(b"content", b"text", b"arguments")
        self.reasoning = texts(b"reasoning", b"reasoning_content")

    def deltas(self, block: bytes) -> tuple[int, int]:
        """How many deltas of the answer, and of the reasoning, a block of events has.

        They look like `"content":" the"`. A backend sends about one token per delta.
        """
        visible = 0
        for text, empty in self.visible:
            if found := block.count(text):
                visible += found - block.count(empty)
        # older versions of vLLM send the same reasoning under both names, hence the larger and not the sum
        reasoning = 0
        for text, empty in self.reasoning:
            if found := block.count(text):
                reasoning = max(reasoning, found - block.count(empty))
        return visible, reasoning


class PassedDeltas:
    """How many deltas of a stream have passed."""

    __slots__ = ("reasoning", "visible")

    def __init__(self) -> None:
        self.visible = 0
        """Of the answer."""
        self.reasoning = 0

    def add(self, deltas: int, *, reasoning: bool) -> None:
        """Count deltas of one kind."""
        if reasoning:
            self.reasoning += deltas
        else:
            self.visible += deltas


COMPACT, SPACED = Spelling(b""), Spelling(b" ")


def spelling_of(block: bytes) -> Spelling | None:
    """The style of the JSON of a stream, from its first event; None if it is another one."""
    first = _FIRST_KEY.search(block)
    return None if first is None else SPACED if first[1] else COMPACT


def finished_choices(events: Iterable[bytes]) -> set[str]:
    """The choices that have a finish reason in these events, by their index."""
    finished = set()
    for event in events:
        choices = (loose_object(event_data(event)) or {}).get("choices")
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            if isinstance(choice, dict) and choice.get("finish_reason"):
                finished.add(str(choice.get("index", position)))
    return finished
