"""Reads a stream of server-sent events beside the bytes: token usage, the end mark, errors."""

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
_BLANK_LINES = (b"\n\n", b"\n\r\n")
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_DONE = re.compile(rb"(?:^|\n)data: ?\[DONE\]\r?\n")  # a whole line: the same words may stand in a text
_FIRST_KEY = re.compile(rb'data: ?\{\s*"[^"\\]*":( ?)')
# After a comma, but not after "choices":[], where it is no running count. What must not stand before it is
# looked for behind the literal, which is found fast.
_COUNT = re.compile(
    rb'"usage":(?:(?<=,"usage":)(?<!\[\],"usage":)|(?<=, "usage":)(?<!\[\], "usage":))'
    rb"\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})"
)
_INDEX = re.compile(rb'"choices":\s*\[\s*\{\s*"index":\s*(\d+)')
_EVENT_LIMIT = 1 << 20  # an event longer than this is passed on in pieces


class _Spelling:
    """The byte patterns of one JSON style, compact or spaced.

    A bare quote cannot occur inside a JSON string, so `"content":"` is found only where the field is.
    """

    def __init__(self, space: bytes) -> None:
        def opening(name: bytes) -> bytes:
            return b'"' + name + b'":' + space + b'"'

        self.finish = opening(b"finish_reason")
        self.visible = [opening(name) for name in (b"content", b"text", b"arguments")]
        self.reasoning = [opening(name) for name in (b"reasoning", b"reasoning_content")]


_COMPACT, _SPACED = _Spelling(b""), _Spelling(b" ")


def _filled(block: bytes, pattern: bytes) -> int:
    """How often a string field stands in the block with at least one character."""
    found = block.count(pattern)
    return found - block.count(pattern + b'"') if found else 0


class StreamReader:
    """Reads a stream of server-sent events as it passes, and says what to forward.

    Whole events are forwarded byte for byte, but for what was asked for on our own account: with
    `strip_usage` the one event that carries nothing but usage is left out, with `strip_counts` the running
    count in every event. Where a backend reports its usage in the last of those only, a client that asked for
    it gets it in an event of its own. prompts: how many one request asked about.
    """

    def __init__(self, *, strip_usage: bool, strip_counts: bool = False, prompts: int = 1) -> None:
        self._strip_usage = strip_usage
        self._strip_counts = strip_counts
        self._prompts = prompts
        self._partial = b""
        self._spelling: _Spelling | None = None
        self._usage: ReportedUsage | None = None
        self._running: dict[bytes, bytes] = {}  # by choice, the last usage in an event of it
        self._counted_in = b""  # the last block that held such a usage
        self._visible = 0
        self._reasoning = 0
        self._finish_reason: str | None = None
        self.done = False
        """The stream's end mark has passed."""
        self.failed = False
        """The backend reported an error inside the stream."""

    def feed(self, block: bytes) -> bytes:
        """Take bytes as they came; returns those of the events now complete.

        An event cut in two waits for its other half, so that a broken backend cannot leave half an event
        in front of our error event.
        """
        if self._partial:
            block = self._partial + block
            self._partial = b""
        if not block.endswith(b"\n\n"):
            end = max((block.rfind(mark) + len(mark) for mark in _SEPARATORS if mark in block), default=0)
            if len(block) - end <= _EVENT_LIMIT:
                block, self._partial = block[:end], block[end:]
        return self._read(block) if block else b""

    def _read(self, block: bytes) -> bytes:
        if self._spelling is None and (first := _FIRST_KEY.search(block)):
            self._spelling = _SPACED if first[1] else _COMPACT
        spelling = self._spelling or _COMPACT
        self._visible += sum(_filled(block, pattern) for pattern in spelling.visible)
        # an older vLLM names the same reasoning twice, hence the larger and not the sum
        self._reasoning += max(_filled(block, pattern) for pattern in spelling.reasoning)
        if spelling.finish in block:
            start = block.rindex(spelling.finish) + len(spelling.finish)
            self._finish_reason = block[start:].partition(b'"')[0].decode(errors="replace")
        self.failed = self.failed or b'data: {"error"' in block
        if not self.done and (mark := block.rfind(b"[DONE]")) >= 0:
            self.done = _DONE.search(block, max(0, mark - 7)) is not None
        if b'"usage"' in block:
            block = self._take_counts(block)
        if b'"usage"' in block:
            block = self._take_usage(block)
        owed = self._counted_in and not self._strip_usage and not self._usage
        if self.done and owed and (end := _DONE.search(block)):
            at = block.index(b"data:", end.start())
            block = block[:at] + self._usage_event() + block[at:]
        return block

    def _usage_event(self) -> bytes:
        """The last event with a running count, without its choices."""
        events = reversed(_EVENT_END.split(self._counted_in))
        last = next((event for event in events if _COUNT.search(event)), b"")
        try:
            chunk = msgspec.json.decode(last.partition(b"data:")[2], type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return b""
        if len(self._running) > 1:  # each choice's own
            chunk["usage"] = _totals(self._counted())
        return b"data: " + msgspec.json.encode(chunk | {"choices": []}) + b"\n\n"

    def _take_counts(self, block: bytes) -> bytes:
        """Looks at nothing but the running counts: every event of hundreds may carry one."""
        parts = _COUNT.split(block)
        if counts := parts[1::2]:
            places = _INDEX.findall(block)
            if len(places) == len(counts):
                self._running.update(zip(places, counts, strict=True))
            else:  # not in every event, or not of choices that begin with their number
                for event in _EVENT_END.split(block):
                    if count := _COUNT.search(event):
                        place = _INDEX.search(event)
                        self._running[place[1] if place else b"0"] = count[1]
        if counts and self._strip_counts:
            self._counted_in = block
            block = b"".join([*(part.rstrip(b", ") for part in parts[:-1:2]), parts[-1]])
        return block

    def _take_usage(self, block: bytes) -> bytes:
        """Only the events that name usage are looked at: the block may hold hundreds of others."""
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
        """The tokens so far: the running count, or one for every delta and the unseen if that is more."""
        return max(self._visible + self._reasoning + unseen, self._counted().completion_tokens or 0)

    def _counted(self) -> ReportedUsage:
        """What the running counts of all choices come to; no completion where none of them names a number."""
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
        """The tokens so far: the backend's count if it came, else what passed."""
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
