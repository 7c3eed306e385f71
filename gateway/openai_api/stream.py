"""Reads token usage, the end mark and errors from a stream of server-sent events, as its bytes pass."""

from __future__ import annotations

from gateway.openai_api.compiled_events import RepeatedEvents
from gateway.openai_api.counts import loose_object, strict_json
from gateway.openai_api.deltas import COMPACT, SPACED, PassedDeltas, Spelling, spelling_of
from gateway.openai_api.earlier_streams import EarlierStreams
from gateway.openai_api.event_stream import (
    DONE,
    ArrivingEvent,
    end_mark,
    event_data,
    holds_error,
    is_whole,
    split_events,
    with_blank_line,
)
from gateway.openai_api.known_events import parts_of
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.repetitions import Repetitions
from gateway.openai_api.running_counts import RunningCounts
from gateway.openai_api.stream_end import StreamEnd
from gateway.openai_api.usage import TokenUsage, cut_short, from_backend

_FRESH = 1.0  # seconds; a backend that generates sends something more often

_CR = 13


class StreamReader:
    """Reads a stream of server-sent events as it passes, and decides which bytes to forward.

    Events are forwarded byte for byte, except for what only the gateway asked the backend for: `strip_usage`
    drops the event that carries nothing but usage, and `strip_counts` removes the running count from every
    event. Some backends report their usage only as a running count. A client that asked for usage then gets
    the last one in an event of its own. `prompts` is the number of prompts in the request, and `choices` how
    many completions it asks for.

    JSON in an unusual layout is read from a copy in the usual one.
    """

    def __init__(
        self,
        *,
        strip_usage: bool,
        strip_counts: bool = False,
        prompts: int = 1,
        choices: int = 1,
        lost: LostThought | None = None,
        earlier: EarlierStreams | None = None,
    ) -> None:
        """lost: watches for a thought in the answer. earlier: what was learnt from other streams."""
        self._strip_usage = strip_usage
        self._strip_counts = strip_counts
        self._choices = choices
        self._lost = lost
        self._earlier = earlier or EarlierStreams()
        self._watching = lost is not None
        self._arriving = ArrivingEvent()
        self._spelling: Spelling | None = None
        self._odd = False
        """The JSON is laid out in an unusual way, so every event is parsed."""
        self._running = RunningCounts(prompts)
        self._end = StreamEnd(choices, self._running)
        self._deltas = PassedDeltas()
        self._repetitions = Repetitions(self._deltas, self._running, self._earlier, strip=strip_counts)
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
        if self._arriving.unfinished or not block.endswith(b"\n\n"):
            block = self._arriving.complete(block)
        return self._read(block) if block else b""

    def finish(self) -> bytes:
        """The rest of a stream that the backend has closed.

        An answer that is complete gets the blank line and the end mark that it lacks, as some servers send
        neither. Half an event is dropped.
        """
        rest = self._arriving.rest()
        block = self._read(with_blank_line(rest)) if rest and is_whole(rest) else b""
        if not self.done and not self.failed and self.answered:
            block += self._read(DONE)
        return block

    def compiled(self) -> RepeatedEvents | None:
        """The kernel's way to pass on the next events, until `feed` is called; None if they must be fed."""
        if self._arriving.unfinished or self.done or self.failed:
            return None
        return self._repetitions.compiled(self._lost if self._watching else None)

    @property
    def answered(self) -> bool:
        """The answer is complete, whether or not the end mark has passed."""
        return self.done or self._end.complete

    def _read(self, block: bytes) -> bytes:
        self._repetitions.settle(self._lost)
        known = None if self._fits(block) else self._read_known(block)
        if known is not None:
            return known
        plain = _CR not in block and block.endswith(b"\n\n") and not self._odd
        passed = self._read_plain(block) if plain else self._read_other(block)
        if self._watching and not self._odd:
            self._look_for_thought(block)
        return passed

    def _read_plain(self, block: bytes) -> bytes:
        """Read whole events: those that repeat the template, and the others by searching and parsing."""
        passed: list[bytes] = []
        repetitions = self._repetitions
        while block:
            end, events = repetitions.read(block) if self._fits(block) else (0, b"")
            if not end:
                # as long as templates are found, each event may become one
                end = block.find(b"\n\n") + 2 if repetitions.learning else len(block)
                events = self._read_event(block[:end])
            elif self._spelling is None:
                self._spelling = COMPACT
            if end == len(block) and not passed:
                return events
            passed.append(events)
            block = block[end:]
        return b"".join(passed)

    def _fits(self, block: bytes) -> bool:
        """Whether the first event of a block seems to repeat a template, of this stream or an earlier one."""
        repetitions = self._repetitions
        if repetitions.fits(block):
            return True
        return not self._odd and self._spelling is not SPACED and repetitions.turn(block)

    def _read_event(self, event: bytes) -> bytes:
        """Read an event that repeats no template, or all the rest of a block."""
        known = self._read_known(event)
        if known is not None:
            return known
        passed = self._read_other(event)
        if self._spelling and self._repetitions.learning:
            self._repetitions.learn(event, self._spelling)
            if self._spelling is COMPACT:
                self._earlier.learn(event)
        return passed

    def _read_known(self, event: bytes) -> bytes | None:
        """Read an event without a text that says what an earlier one did; None if there was none."""
        if event == DONE:
            self.done = True
            return self._with_usage_event(event) if self._running.removed else event
        parts = parts_of(event) if not (self.done or self._odd or self._spelling is SPACED) else None
        said = self._earlier.said(parts) if parts else None
        if parts is None or said is None:
            return None
        self._spelling = COMPACT
        self._end.note(said, parts.counts)
        if said.last:
            return b"" if self._strip_usage else event
        if not parts.counts:
            return event
        self._running.repeat(said.index, event, parts.counts, strip=self._strip_counts)
        return parts.bare if self._strip_counts else event

    def _read_other(self, block: bytes) -> bytes:
        return self._read_usual(block, self._spelling) if self._spelling else self._read_unknown(block)

    def _read_unknown(self, block: bytes) -> bytes:
        """Read a block of a stream whose JSON is not known yet, or is laid out in an unusual way."""
        if not self._odd and b"{" in block:
            self._spelling = spelling_of(block)
            self._odd = self._spelling is None
        if self._odd:
            return b"".join(map(self._read_odd, split_events(block)))
        return self._read_usual(block, self._spelling or COMPACT)

    def _read_odd(self, event: bytes) -> bytes:
        """Read an event in an unusual layout. It is forwarded as it came, unless something is removed."""
        chunk = loose_object(event_data(event))
        if chunk is None:
            self._look_for_thought(event)
            return self._read_usual(event, COMPACT)
        for last in ("choices", "usage"):
            if last in chunk:
                chunk[last] = chunk.pop(last)
        usual = b"data: " + strict_json(chunk) + b"\n\n"
        read = self._read_usual(usual, COMPACT)
        self._look_for_thought(usual)
        return event if read == usual else read

    def _read_usual(self, block: bytes, spelling: Spelling) -> bytes:
        visible, reasoning = spelling.deltas(block)
        self._deltas.visible += visible
        self._deltas.reasoning += reasoning
        if spelling.finish in block:
            self._end.read_finish_reasons(block, spelling)
        self._read_end(block)
        if b'"usage"' in block:
            block = self._running.take(block, strip=self._strip_counts)
            block = self._end.take_usage(block, strip=self._strip_usage)
        return self._with_usage_event(block) if self.done and self._running.removed else block

    def _look_for_thought(self, block: bytes) -> None:
        """Count the deltas of a thought that was sent as a part of the answer as what they are."""
        if self._lost is None or not self._watching:
            return
        after = self._lost.look(block, thinks=self._deltas.reasoning > 0)
        self._watching = self._lost.watching
        if after is not None:
            self._deltas.reasoning, self._deltas.visible = self._deltas.visible - after, after

    def _read_end(self, block: bytes) -> None:
        """Note whether the stream has failed, `data: {"error":…}`, or ended, `data: [DONE]`."""
        if b'{"error"' in block:
            self.failed = self.failed or holds_error(block)
        self.done = self.done or end_mark(block) >= 0

    def _with_usage_event(self, block: bytes) -> bytes:
        """The block with a usage event before its end mark, if the client asked for usage and got none."""
        owed = not self._strip_usage and not self._end.usage
        if owed and (at := end_mark(block)) >= 0:
            block = block[:at] + self._running.usage_event() + block[at:]
        return block

    def passed(self, unseen: int = 0) -> int:
        """Completion tokens so far: the running count, or one per delta plus `unseen` if that is more.

        `unseen` is how many tokens the backend may have generated without sending them.
        """
        self._repetitions.settle(self._lost)
        return max(
            self._deltas.visible + self._deltas.reasoning + unseen,
            self._running.total().completion_tokens or 0,
        )

    def silent(self, age: float) -> bool:
        """Whether what passed says nothing about what the backend has generated.

        So it is when the latest block, `age` seconds ago, is too old, and when a stream has ended without a
        count.
        """
        return self._end.usage is None and (age > _FRESH if not self.done else not self.passed())

    def token_usage(self) -> TokenUsage:
        """The token usage so far: as the backend reported it, or else as counted from what passed."""
        self._repetitions.settle(self._lost)
        reasoning, visible = self._deltas.reasoning, self._deltas.visible
        if self._lost and self._lost.mark and not self._lost.closed:
            reasoning, visible = reasoning + visible, 0
        usage = self._end.usage or (self._running.total() if self._running and self.done else None)
        total = from_backend(usage, reasoning, visible) if usage else TokenUsage()
        if total.completion is None:
            total = self._count(total, reasoning, visible)
        total.complete = self.done
        total.finish_reason = self._end.finish_reason
        total.truncated = not visible and cut_short(self._end.finish_reason, reasoning or total.reasoning)
        total.lost_mark = self._lost.mark if self._lost else None
        return total

    def _count(self, reported: TokenUsage, reasoning: int, visible: int) -> TokenUsage:
        """The usage as far as it passed, if the backend has not reported the completion."""
        passed = self.passed()
        if not passed:
            return TokenUsage(reported.prompt, uncounted=reported.uncounted)
        total = TokenUsage(reasoning=reasoning)
        if self._running:
            total = from_backend(self._running.total(), reasoning, visible)
        total.completion, total.source = passed, "counted"
        total.deltas = self._deltas.visible + self._deltas.reasoning
        total.prompt = reported.prompt if total.prompt is None else total.prompt
        total.uncounted = reported.uncounted
        return total
