"""What a stream says at its end: finish reasons and the usage."""

from __future__ import annotations

from msgspec import UNSET

from gateway.openai_api.deltas import Spelling, finished_choices
from gateway.openai_api.event_stream import BLANK_LINES, EVENT_END, split_events
from gateway.openai_api.known_events import Said
from gateway.openai_api.running_counts import RunningCounts
from gateway.openai_api.usage import ReportedUsage, reported_usage
from gateway.openai_api.usage_events import read_chunk


class StreamEnd:
    """The finish reasons and the usage that have passed."""

    __slots__ = ("_choices", "_finished", "_running", "finish_reason", "last", "usage")

    def __init__(self, choices: int, running: RunningCounts) -> None:
        """choices: how many completions the request asks for."""
        self._choices = choices
        self._running = running
        self._finished: set[str] = set()
        """The choices that have a finish reason."""
        self.finish_reason: str | None = None
        self.usage: ReportedUsage | None = None
        """That of the whole stream."""
        self.last = False
        """The event that carries nothing but usage has passed, so all choices have ended."""

    @property
    def complete(self) -> bool:
        """All choices have ended."""
        return self.last or len(self._finished) >= self._choices

    def note(self, said: Said, counts: bytes) -> None:
        """Record what an event says that is known. counts: the usage, if it carries nothing else."""
        if said.finish_reason is not None:
            self.finish_reason = said.finish_reason
            self._finished |= said.finished if self._choices > 1 else {"0"}
        if said.last:
            self.usage, self.last = reported_usage(counts), True

    def read_finish_reasons(self, block: bytes, spelling: Spelling) -> None:
        """Keep the last `"finish_reason":"stop"` of the block; before the end the field is null."""
        start = block.rindex(spelling.finish) + len(spelling.finish)
        self.finish_reason = block[start:].partition(b'"')[0].decode(errors="replace")
        if self._choices == 1:
            self._finished.add("0")
        else:
            self._finished |= finished_choices(
                event for event in split_events(block) if spelling.finish in event
            )

    def take_usage(self, block: bytes, *, strip: bool) -> bytes:
        """Record the final usage, and with `strip` drop the event that carries nothing else.

        Only events that name usage are parsed, because the block may hold hundreds of others.
        """
        kept, start = [], 0
        while (found := block.find(b'"usage"', start)) >= 0:
            marks = [mark for mark in BLANK_LINES if block.find(mark, start, found) >= 0]
            begin = max((block.rfind(mark, start, found) + len(mark) for mark in marks), default=start)
            end = match.end() if (match := EVENT_END.search(block, found)) else len(block)
            drop = self._note_usage(block[begin:end]) and strip
            kept.append(block[start : begin if drop else end])
            start = end
        return b"".join([*kept, block[start:]])

    def _note_usage(self, event: bytes) -> bool:
        """Record the usage that an event reports. Returns whether it carries nothing else."""
        chunk = read_chunk(event)
        if chunk is None or chunk.usage is UNSET:
            return False
        usage, choices = bytes(chunk.usage), bytes(chunk.choices)
        if choices.strip(b" \r\n\t[]") not in {b"", b"null"}:
            if usage != b"null" and not self._running.latest:
                self._running.note(event, usage)
            return False
        self.usage = reported_usage(usage) or self.usage
        self.last = self.last or usage != b"null"
        return choices != b"null"
