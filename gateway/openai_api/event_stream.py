"""The syntax of server-sent events: where an event ends, and what data it carries."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.openai_api.counts import loose_object

BLANK_LINES = (b"\n\n", b"\n\r\n", b"\r\r")
"""What an event ends with. Lines end with LF, CRLF or CR."""

EVENT_END = re.compile(rb"\r?\n\r?\n|\r\r")
"""The blank line that ends an event, as in data: {"id":"c1","choices":[…]}\\n\\n"""

KEEP_ALIVE = b": keep-alive\n"
"""A comment, for clients and proxies that take silence for the end.

No blank line follows it. Several clients, among them OpenAI's for Go, take a blank line for an event without
data, and fail to parse that. The comment thus stands in front of the next event.
"""

DONE = b"data: [DONE]\n\n"

# An error in place of a chunk, as in data: {"error":{"message":…}} but not data: {"error":null,"choices":…}
_ERROR = re.compile(rb'(?:^|[\r\n])data:\s*\{\s*"error"\s*:\s*[^n\s]')

# The end mark, a line of its own, as in data: [DONE]\n\n
_DONE = re.compile(rb"(?:^|[\r\n])data:[ \t]*\[DONE\][ \t]*[\r\n]")
_DONE_START = 16  # bytes from the start of its line to the mark, at most
_DONE_END = 64  # bytes from the mark to the end of its line, at most

_LONGEST_BLANK_LINE = 3
_EVENT_LIMIT = 1 << 20  # bytes; a longer event is forwarded in pieces

_LINE_END = re.compile(rb"\r\n|\n|\r")


class ArrivingEvent:
    """The incomplete event at the end of what has arrived of a stream."""

    __slots__ = ("unfinished",)

    def __init__(self) -> None:
        self.unfinished: bytes | bytearray = b""

    def complete(self, block: bytes) -> bytes:
        """Add the next bytes of the stream. Returns the events that are complete, and keeps the rest."""
        if self.unfinished:
            # Only the end can complete the event: searching all of it at every piece would be quadratic.
            searched = self.unfinished[1 - _LONGEST_BLANK_LINE :] + block
            if isinstance(self.unfinished, bytes):
                self.unfinished = bytearray(self.unfinished)
            self.unfinished += block
            if len(self.unfinished) <= _EVENT_LIMIT and not ends_event(searched):
                return b""
            block, self.unfinished = bytes(self.unfinished), b""
        if not block.endswith(b"\n\n"):
            end = end_of_events(block)
            if len(block) - end <= _EVENT_LIMIT:
                block, self.unfinished = block[:end], block[end:]
        return block

    def rest(self) -> bytes:
        """What is left when the stream has ended."""
        rest, self.unfinished = bytes(self.unfinished), b""
        return rest


def end_of_events(block: bytes) -> int:
    """Where the last complete event of a block ends; 0 if none does."""
    end = block.rfind(b"\n\n") + 2 if b"\n\n" in block else 0
    if b"\r" in block:
        end = max([end, *(block.rfind(mark) + len(mark) for mark in BLANK_LINES[1:] if mark in block)])
    return end


def ends_event(block: bytes | bytearray) -> bool:
    """Whether a block holds the blank line that ends an event."""
    return b"\n\n" in block or (b"\r" in block and any(mark in block for mark in BLANK_LINES[1:]))


def event_data(event: bytes) -> bytes:
    """The data of an event. Its `data:` lines are joined, as the JSON may be spread over several."""
    lines = _LINE_END.split(event.removeprefix(b"\xef\xbb\xbf"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


def holds_error(block: bytes) -> bool:
    """Whether one of these events is an error of the backend."""
    return _ERROR.search(block) is not None


def end_mark(block: bytes) -> int:
    """Where the first end mark begins, `data: [DONE]`; -1 if the block has none."""
    mark = block.find(b"[DONE]")
    while mark >= 0:
        if found := _DONE.search(block, max(0, mark - _DONE_START), mark + _DONE_END):
            return block.index(b"data:", found.start())
        mark = block.find(b"[DONE]", mark + 1)
    return -1


def first_error(block: bytes) -> bytes | None:
    """The first event of a stream, as one `data:` line, if it is an error of the backend.

    It has an `error`, or is one: `{"object":"error","message":…}`, as vLLM before 0.10 and others write it.
    """
    if b'"error"' not in block:
        return None
    data = next(filter(None, map(event_data, split_events(block))), b"")
    chunk = loose_object(data)
    if chunk is None or not (chunk.get("error") or chunk.get("object") == "error"):
        return None
    return b"data: " + data.replace(b"\n", b" ")


def with_blank_line(rest: bytes) -> bytes:
    """What is left of a stream that has ended, with the blank line that its last event lacks."""
    if not rest.strip():
        return rest
    return rest + (rest[-1:] if rest[-1:] in b"\r\n" else b"\n\n")


def is_whole(rest: bytes) -> bool:
    """Whether what is left of a stream is a complete event, although its blank line is missing."""
    data = event_data(rest)
    return not rest.strip() or data.strip() == b"[DONE]" or loose_object(data) is not None


def split_events(block: bytes) -> Iterator[bytes]:
    """The events of a block, each with its blank line."""
    start = 0
    for end in EVENT_END.finditer(block):
        yield block[start : end.end()]
        start = end.end()
    if start < len(block):
        yield block[start:]
