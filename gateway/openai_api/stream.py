"""Reads token usage, the end mark and errors from a stream of server-sent events, as its bytes pass."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.openai_api.usage import CompletionDetails, ReportedUsage, TokenUsage, from_backend, valid_count


class _Chunk(Struct):
    usage: ReportedUsage | UnsetType | None = UNSET
    choices: list[Raw] | None = None


_chunk = msgspec.json.Decoder(_Chunk)
_usage = msgspec.json.Decoder(ReportedUsage)

_SEPARATORS = (b"\n\n", b"\r\n\r\n")
_LONGEST_SEPARATOR = 4
_BLANK_LINES = (b"\n\n", b"\n\r\n")  # what a match of _EVENT_END can end with
_FRESH = 1.0  # seconds; a backend that generates sends something more often
_EVENT_LIMIT = 1 << 20  # bytes; a longer event is forwarded in pieces

# These patterns find fields without parsing the JSON, because a block may hold hundreds of events. Text that
# the model writes cannot match them: inside a JSON string, quotes and line ends are escaped.

# The blank line that ends an event, as in data: {"id":"c1","choices":[…]}\n\n
_EVENT_END = re.compile(rb"\r?\n\r?\n")

# The end mark, a line of its own, as in data: [DONE]\n\n
_DONE = re.compile(rb"(?:^|\n)data: ?\[DONE\]\r?\n")

# The first key of an event. A space after its colon means spaced JSON, as in data: {"id": "c1", …}
_FIRST_KEY = re.compile(rb'data: ?\{\s*"[^"\\]*":( ?)')

# A running count, as in data: {"choices":[{"index":0,…}],"usage":{"completion_tokens":7,…}}
# but not the final usage, as in data: {"choices":[],"usage":{"completion_tokens":42,…}}
# The search is fast only if the pattern begins with a literal. So `"usage":` comes first, and look-behinds
# then check what stands before it, each one in compact and in spaced JSON.
_COUNT = re.compile(
    rb"""
    "usage":
    (?: (?<=,"usage":) | (?<=,\ "usage":) )   # after a comma, which is removed together with the count
    (?<!\[\],"usage":) (?<!\[\],\ "usage":)   # not after "choices":[],
    \s* ( \{ [^{}]* (?: \{[^{}]*\} [^{}]* )* \} )   # an object that may hold others, one level deep
    """,
    re.VERBOSE,
)

# The index of the choice that an event belongs to, as in data: {"choices":[{"index":0,"delta":{…}}]}
_INDEX = re.compile(rb'"choices":\s*\[\s*\{\s*"index":\s*(\d+)')


class _Spelling:
    """Byte patterns of string fields in one JSON style: compact, `"text":"…"`, or spaced, `"text": "…"`."""

    def __init__(self, space: bytes) -> None:
        def opening(name: bytes) -> bytes:
            return b'"' + name + b'":' + space + b'"'

        self.finish = opening(b"finish_reason")
        self.visible = [opening(name) for name in (b"content", b"text", b"arguments")]
        self.reasoning = [opening(name) for name in (b"reasoning", b"reasoning_content")]


_COMPACT, _SPACED = _Spelling(b""), _Spelling(b" ")


def _count_filled(block: bytes, pattern: bytes) -> int:
    """Count the occurrences of a string field with a value that is not empty."""
    found = block.count(pattern)
    return found - block.count(pattern + b'"') if found else 0


class StreamReader:
    """Reads a stream of server-sent events as it passes, and decides which bytes to forward.

    Events are forwarded byte for byte, except for what only the gateway asked the backend for: `strip_usage`
    drops the event that carries nothing but usage, and `strip_counts` removes the running count from every
    event. Some backends report their usage only as a running count. A client that asked for usage then gets
    the last one in an event of its own. `prompts` is the number of prompts in the request.
    """

    def __init__(self, *, strip_usage: bool, strip_counts: bool = False, prompts: int = 1) -> None:
        self._strip_usage = strip_usage
        self._strip_counts = strip_counts
        self._prompts = prompts
        self._partial = bytearray()
        """The incomplete event at the end of what has arrived."""
        self._spelling: _Spelling | None = None
        self._usage: ReportedUsage | None = None
        self._running: dict[bytes, bytes] = {}
        """The latest running count of each choice, by the index of the choice."""
        self._counted_in = b""
        """The latest block from which running counts were removed."""
        self._visible = 0
        """Deltas of the answer that passed."""
        self._reasoning = 0
        """Deltas of the reasoning that passed."""
        self._finish_reason: str | None = None
        self.done = False
        """The stream's end mark has passed."""
        self.failed = False
        """The backend reported an error inside the stream."""
        self.stopped = False
        """The client has all that it asked for, although the backend goes on."""

    def feed(self, block: bytes) -> bytes:
        """Take the next bytes of the stream, and return the bytes of the events that are now complete.

        An incomplete event is held back until its rest arrives. Otherwise a backend that breaks off would
        leave half an event in front of our error event.
        """
        if self._partial:
            # Only the end can complete the event: searching all of it at every piece would be quadratic.
            searched = self._partial[1 - _LONGEST_SEPARATOR :]
            self._partial += block
            searched += block
            if len(self._partial) <= _EVENT_LIMIT and not any(mark in searched for mark in _SEPARATORS):
                return b""
            block = bytes(self._partial)
            self._partial = bytearray()
        if not block.endswith(b"\n\n"):
            end = max((block.rfind(mark) + len(mark) for mark in _SEPARATORS if mark in block), default=0)
            if len(block) - end <= _EVENT_LIMIT:
                block, self._partial = block[:end], bytearray(block[end:])
        return self._read(block) if block else b""

    def _read(self, block: bytes) -> bytes:
        self._count_deltas(block, self._spelling or self._detect_spelling(block))
        self._read_finish_reason(block, self._spelling or _COMPACT)
        self._read_end(block)
        if b'"usage"' in block:
            block = self._take_counts(block)
            block = self._take_usage(block)
        return self._with_usage_event(block) if self.done and self._counted_in else block

    def _detect_spelling(self, block: bytes) -> _Spelling:
        if first := _FIRST_KEY.search(block):
            self._spelling = _SPACED if first[1] else _COMPACT
        return self._spelling or _COMPACT

    def _count_deltas(self, block: bytes, spelling: _Spelling) -> None:
        """Count `"content":" the"` and the like: a backend sends about one token per delta."""
        for pattern in spelling.visible:
            self._visible += _count_filled(block, pattern)
        # older versions of vLLM send the same reasoning under both names, hence the larger and not the sum
        self._reasoning += max([_count_filled(block, pattern) for pattern in spelling.reasoning])

    def _read_finish_reason(self, block: bytes, spelling: _Spelling) -> None:
        """Keep the last `"finish_reason":"stop"` of the block; before the end the field is null."""
        if spelling.finish in block:
            start = block.rindex(spelling.finish) + len(spelling.finish)
            self._finish_reason = block[start:].partition(b'"')[0].decode(errors="replace")

    def _read_end(self, block: bytes) -> None:
        """Note whether the stream has failed, `data: {"error":…}`, or ended, `data: [DONE]`."""
        self.failed = self.failed or b'data: {"error"' in block
        if not self.done and (mark := block.rfind(b"[DONE]")) >= 0:
            self.done = _DONE.search(block, max(0, mark - len(b"\ndata: "))) is not None

    def _with_usage_event(self, block: bytes) -> bytes:
        """The block with a usage event before its end mark, if the client asked for usage and got none."""
        owed = not self._strip_usage and not self._usage
        if owed and (end := _DONE.search(block)):
            at = block.index(b"data:", end.start())
            block = block[:at] + self._usage_event() + block[at:]
        return block

    def _usage_event(self) -> bytes:
        """The last event with a running count, without its choices: `{"id":…,"choices":[],"usage":{…}}`."""
        events = reversed(_EVENT_END.split(self._counted_in))
        last = next((event for event in events if _COUNT.search(event)), b"")
        try:
            chunk = msgspec.json.decode(last.partition(b"data:")[2], type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return b""
        if len(self._running) > 1:  # the event counts the tokens of one choice only
            chunk["usage"] = _totals(self._counted())
        return b"data: " + msgspec.json.encode(chunk | {"choices": []}) + b"\n\n"

    def _take_counts(self, block: bytes) -> bytes:
        """Record the running counts, and with `strip_counts` remove them from the block."""
        parts = _COUNT.split(block)  # bytes between counts at even positions, counts at odd ones
        if counts := parts[1::2]:
            indices = _INDEX.findall(block)
            if len(indices) == len(counts):
                self._running.update(zip(indices, counts, strict=True))
            else:  # some events have no count, or a choice that does not begin with its index: pair by event
                for event in _EVENT_END.split(block):
                    if count := _COUNT.search(event):
                        index = _INDEX.search(event)
                        self._running[index[1] if index else b"0"] = count[1]
        if counts and self._strip_counts:
            self._counted_in = block
            block = b"".join([*(part.rstrip(b", ") for part in parts[:-1:2]), parts[-1]])
        return block

    def _take_usage(self, block: bytes) -> bytes:
        """Record the final usage, and with `strip_usage` drop the event that carries nothing else.

        Only events that name usage are parsed, because the block may hold hundreds of others.
        """
        kept, start = [], 0
        while (found := block.find(b'"usage"', start)) >= 0:
            marks = [mark for mark in _BLANK_LINES if block.find(mark, start, found) >= 0]
            begin = max((block.rfind(mark, start, found) + len(mark) for mark in marks), default=start)
            end = match.end() if (match := _EVENT_END.search(block, found)) else len(block)
            chunk = _read_chunk(block[begin:end])
            if chunk is None or chunk.usage is UNSET:
                kept.append(block[start:end])
            else:
                self._usage = self._usage if chunk.choices else chunk.usage or self._usage
                drop = self._strip_usage and chunk.choices == []
                kept.append(block[start : begin if drop else end])
            start = end
        return b"".join([*kept, block[start:]])

    def passed(self, unseen: int = 0) -> int:
        """Completion tokens so far: the running count, or one per delta plus `unseen` if that is more.

        `unseen` is how many tokens the backend may have generated without sending them.
        """
        return max(self._visible + self._reasoning + unseen, self._counted().completion_tokens or 0)

    def silent(self, age: float) -> bool:
        """Whether what passed says nothing about what the backend has generated.

        So it is when the latest block, `age` seconds ago, is too old, and when a stream has ended without a
        count.
        """
        return self._usage is None and (age > _FRESH if not self.done else not self.passed())

    def _counted(self) -> ReportedUsage:
        """The sum of the running counts of all choices; `completion_tokens` is None if none has a number."""
        try:
            counts = [_usage.decode(count) for count in self._running.values()]
        except (msgspec.DecodeError, UnicodeDecodeError):
            counts = []
        details = [one.completion_tokens_details for one in counts]
        completion = [tokens for one in counts if (tokens := valid_count(one.completion_tokens)) is not None]
        return ReportedUsage(
            next((one.prompt_tokens for one in counts), None) if self._prompts == 1 else None,
            sum(completion) if completion else None,
            CompletionDetails(sum(valid_count(one.reasoning_tokens) or 0 for one in details if one)),
        )

    def token_usage(self) -> TokenUsage:
        """The token usage so far: as the backend reported it, or else as counted from what passed."""
        usage = self._usage or (self._counted() if self._running and self.done else None)
        if usage and valid_count(usage.completion_tokens) is not None:
            total = from_backend(usage, self._reasoning, self._visible)
        elif passed := self.passed():
            total = TokenUsage(reasoning=self._reasoning)
            if self._running:
                total = from_backend(self._counted(), self._reasoning, self._visible)
            total.completion, total.source = passed, "counted"
            total.deltas = self._visible + self._reasoning
        else:
            total = TokenUsage()
        total.complete = self.done
        total.finish_reason = self._finish_reason
        total.truncated = self._finish_reason == "length" and self._visible == 0
        return total


def _totals(usage: ReportedUsage) -> dict[str, int]:
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _read_chunk(event: bytes) -> _Chunk | None:
    payload = event.partition(b"data:")[2]
    try:
        return _chunk.decode(payload) if b'"usage"' in payload else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
