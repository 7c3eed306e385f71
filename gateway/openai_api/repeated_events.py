"""Recognises events of a stream that repeat an earlier one but for a text and a running count. No I/O."""

from __future__ import annotations

from copy import copy

from gateway.openai_api.compiled_events import RepeatedEvents
from gateway.openai_api.deltas import Spelling
from gateway.openai_api.running_counts import index_of
from router_model.native.library import Kernel

_BACKSLASH = 92


class EventTemplate:
    """An event as its fixed parts. Between them stand a text and, often a running count.

    Prefix: `data: {"id":"c","choices":[{"index":0,"delta":{"content":"`, and the text follows.
    Middle: `"},"finish_reason":null}],"usage":{`, and the numbers follow.
    Tail:   `}}` and a blank line.

    What an event says beside the text and the count follows from its fixed parts. So an event that repeats a
    template is read with a few searches for bytes, where another needs dozens.
    """

    __slots__ = (
        "_closing",
        "_counted",
        "_inner",
        "_middle",
        "_rest",
        "_tail",
        "index",
        "prefix",
        "reasoning",
    )

    def __init__(
        self,
        prefix: bytes,
        rest: bytes,
        usage: bytes,
        closing: bytes,
        *,
        inner: int,
        index: bytes,
        reasoning: bool,
    ) -> None:
        """rest: from the text to the count. usage: from there to the numbers, empty without a count.

        closing: what follows the count. inner: objects inside it. index: the choice.
        reasoning: the text is a thought.
        """
        self.prefix = prefix
        self._middle = rest + usage
        self._rest = len(rest)
        self._closing = closing
        self._inner = inner
        self._tail = b"}" * (inner + 1) + closing if usage else closing
        self._counted = bool(usage)
        self.index = index
        self.reasoning = reasoning

    def compiled(self, kernel: Kernel, *, strip: bool) -> RepeatedEvents:
        """The template for the kernel."""
        fixed, inner = (self.prefix, self._middle, self._tail), self._inner if self._counted else -1
        return RepeatedEvents(kernel, fixed, (self._rest, len(self._closing)), inner, strip=strip)

    def with_prefix(self, prefix: bytes) -> EventTemplate:
        """The template with another prefix, in which nothing differs but ids."""
        changed = copy(self)
        changed.prefix = prefix
        return changed

    def counted(self, count: bytes) -> bytes:
        """An event that repeats the template, without a text, with this running count."""
        return self.prefix + self._middle[:-1] + count + self._closing

    def read(self, block: bytes, *, strip: bool) -> tuple[int, int, list[bytes], bytes, bytes]:
        """Read the events at the beginning of a block that repeat the template. It ends with a blank line.

        strip: remove the running counts.

        Returns where the events end, how many have a text, with `strip` the bytes that are kept of them, and
        the last event with its running count.
        """
        prefix, middle, tail, counted = self.prefix, self._middle, self._tail, self._counted
        ahead, behind, tail_size = len(prefix), len(middle), len(tail)
        inner, closing, strip = self._inner, self._closing, strip and counted
        kept: list[bytes] = []
        size, find, startswith = len(block), block.find, block.startswith
        at = begin = deltas = start = stop = 0
        while at < size and startswith(prefix, at):
            text = at + ahead
            end = find(b"\n", text) + 2  # the first line end must be that of the event
            numbers_end = end - tail_size
            if not startswith(tail, numbers_end):
                break
            close = find(middle, text, numbers_end) if counted else numbers_end - behind
            numbers = close + behind
            if close < text or not (
                block.count(b"{", numbers, numbers_end) == inner and find(b"}", numbers, numbers_end) < 0
                if counted
                else startswith(middle, close)
            ):
                break
            if close > text:
                odd = find(b'"', text, close) >= 0 or block[close - 1] == _BACKSLASH
                if odd and not _is_text(block, text, close):
                    break
                deltas += 1
            if strip:
                kept += (block[at : close + self._rest], closing)
            start, stop, begin, at = numbers - 1, end - len(closing), at, end
        return at, deltas, kept, block[begin:at], block[start:stop] if counted else b""


def _is_text(block: bytes, start: int, end: int) -> bool:
    """Whether this part of a block is the inside of one JSON string."""
    if block[end - 1] == _BACKSLASH:  # the quote behind it may be escaped
        return False
    escaped = block.count(b'\\"', start, end)
    return block.count(b'"', start, end) == escaped and (not escaped or block.find(b"\\\\", start, end) < 0)


def template_of(event: bytes, spelling: Spelling) -> EventTemplate | None:
    """The template of a whole event; None if it has not exactly one text, or says more than that."""
    if not event.startswith(b"data:") or event.count(b"\n") != 2 or not event.endswith(b"}\n\n"):
        return None
    texts = [(opening, False) for opening, _ in spelling.visible]
    texts += [(opening, True) for opening, _ in spelling.reasoning]
    found = [(opening, reasoning) for opening, reasoning in texts if opening in event]
    if len(found) != 1 or event.count(found[0][0]) != 1:
        return None
    opening, reasoning = found[0]
    start = event.index(opening) + len(opening)
    end = event.find(b'"', start)
    if event[end - 1] == _BACKSLASH:
        return None
    prefix, rest, closing, usage, inner = event[:start], event[end:], b"", b"", 0
    at = rest.rfind(spelling.count)
    if at >= 0:
        last = rest.rfind(b"}", 0, -3) + 1  # of the running count, before the end of the chunk
        inner = rest.count(b"{", at, last) - 1
        rest, usage, closing = rest[:at], spelling.count, rest[last:]
    if inner > 1 or not _is_plain(prefix, rest, closing, spelling):
        return None
    return EventTemplate(
        prefix, rest, usage, closing, inner=inner, index=index_of(event), reasoning=reasoning
    )


def _is_plain(prefix: bytes, rest: bytes, closing: bytes, spelling: Spelling) -> bool:
    """Whether the fixed parts of an event say nothing about its usage, an error or an end."""
    fixed = prefix + rest + closing
    null = fixed.count(spelling.count[:-1] + b"null")
    return (
        fixed.count(b'"usage"') == null
        and (not null or b'"choices":[{' in prefix or b'"choices": [{' in prefix)
        and rest == rest.rstrip(b", ")
        and not rest.endswith(b"[]")
        and not any(word in fixed for word in (spelling.finish, b'"error"', b"[DONE]", b"\r"))
    )
