"""Ends the choices of a stream at the client's stop strings, after the backend has been read. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from gateway.openai_api.earlier_streams import EarlierStreams
from gateway.openai_api.event_stream import BLANK_LINES, split_events
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.requests import encode
from gateway.openai_api.running_counts import totals
from gateway.openai_api.stop_strings import StopSearch, StopStrings
from gateway.openai_api.stopped_choices import (
    ChoiceFields,
    content_of,
    cut_tokens,
    ended,
    has,
    has_calls,
    has_reasoning,
    member_of,
    with_content,
    without_calls,
)
from gateway.openai_api.stream import StreamReader
from gateway.openai_api.usage import TokenUsage

# What can concern a stop string: text of the answer, the end of a choice or of the stream, a tool call.
_CONCERNS = (
    *(b'"content":"', b'"content": "', b'"finish_reason":"', b'"finish_reason": "'),
    *(b'"tool_calls":', b'"function_call":', b"[DONE]"),
)

_chunk = msgspec.json.Decoder(dict[str, Raw])
_choices = msgspec.json.Decoder(list[ChoiceFields])


class StoppingReader(StreamReader):
    """Reads a stream to which the gateway applies the client's stop strings.

    Text that may begin one of the strings is held back until it is known whether it does. Events are
    forwarded byte for byte, except for those whose text changes. An event that is so long that it passes in
    pieces is not searched.
    """

    def __init__(
        self,
        stops: StopStrings,
        *,
        strip_usage: bool,
        strip_counts: bool = False,
        choices: int = 1,
        lost: LostThought | None = None,
        earlier: EarlierStreams | None = None,
    ) -> None:
        super().__init__(
            strip_usage=strip_usage, strip_counts=strip_counts, choices=choices, lost=lost, earlier=earlier
        )
        self._stops = stops
        self._searches: dict[int, StopSearch] = {}
        """One for each choice whose answer has begun."""
        self._called: set[int] = set()
        """Choices with a tool call."""
        self._stopped: set[int] = set()
        """Choices that a stop string has ended."""
        self._closed: set[int] = set()
        """Choices that the backend has ended."""
        self._head: dict[str, Raw] = {}
        """The fields of the latest chunk, without its choices and usage."""
        self._in_pieces = False
        self._counted_out = self._marked = False
        """The event with the usage, and the end mark, have been forwarded."""

    def feed(self, block: bytes) -> bytes:
        """See `StreamReader.feed`. When all choices have ended, the stream is completed for the client."""
        return self._cut(super().feed(block))

    def compiled(self) -> None:
        """None: every event is searched."""

    def finish(self) -> bytes:
        """See `StreamReader.finish`."""
        return self._cut(super().finish())

    def _cut(self, block: bytes) -> bytes:
        """What the client gets of whole events."""
        watches = self._stopped or self._in_pieces or self._waits
        if not watches and not any(map(block.__contains__, _CONCERNS)) and block.endswith(BLANK_LINES):
            return block
        passed = b"".join(map(self._pass, split_events(block)))
        if self._stopped - self._closed and self._all_ended():
            self.stopped = True
            passed += self._closing()
        return passed

    def _all_ended(self) -> bool:
        over = self._stopped | self._closed
        return len(over) >= self._choices and over >= self._searches.keys()

    def token_usage(self) -> TokenUsage:
        """See `StreamReader.token_usage`."""
        usage = super().token_usage()
        if self._stopped:
            usage.finish_reason = "stop"
        return usage

    @property
    def _waits(self) -> bool:
        return any(search.waits for search in self._searches.values())

    def _pass(self, event: bytes) -> bytes:
        """What the client gets of an event."""
        whole, self._in_pieces = not self._in_pieces, not event.endswith(BLANK_LINES)
        lines = event.splitlines(keepends=True)
        payload = b"".join([line[5:] for line in lines if line.startswith(b"data:")])
        if not payload or not whole:
            return event
        self._marked = self._marked or payload.strip() == b"[DONE]"
        if self._marked or self._in_pieces:
            return self._rest() + event
        try:
            chunk = _chunk.decode(payload)
            choices = _choices.decode(chunk.get("choices", Raw(b"[]")))
            kept = [self._choice(choice) for choice in choices]
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return event
        if choices:
            self._head = {name: chunk[name] for name in chunk if name not in {"choices", "usage"}}
        else:
            self._counted_out = self._counted_out or has(chunk, "usage")
        if kept == choices:
            return event
        others = b"".join([line for line in lines if line.strip() and not line.startswith(b"data:")])
        return others + _with_choices(chunk, [choice for choice in kept if choice is not None])

    def _choice(self, choice: ChoiceFields) -> ChoiceFields | None:
        """The choice as the client gets it; None if it has ended."""
        index = msgspec.json.decode(choice.get("index", Raw(b"0")), type=int)
        finishes = has(choice, "finish_reason")
        if finishes:
            self._closed.add(index)
        if index in self._stopped:
            return None
        delta = member_of(choice, "delta")
        calls, reasons, text = has_calls(delta), has_reasoning(delta), content_of(delta)
        if calls:
            self._called.add(index)
        search = self._searches.get(index)
        if search is None:
            if not text:
                return choice
            search = self._searches[index] = StopSearch(self._stops, parsed=self._deltas.reasoning > 0)
        # No string reaches from text before a thought or a tool call to text after it.
        shown = search.feed("", last=True) if reasons else ""
        shown += search.feed(text, counts=self._counts(index), last=finishes or calls)
        if search.found is None:
            return choice if shown == text else with_content(choice, "delta", delta, shown)
        self._stopped.add(index)
        choice = cut_tokens(choice, text, len(text) - search.dropped)
        choice = with_content(choice, "delta", without_calls(delta), shown)
        return ended(choice, "tool_calls" if index in self._called else "stop", search.found)

    def _counts(self, index: int) -> bool:
        """Whether the choice has so many tokens that stop strings count."""
        running = self._running.of(index) if self._stops.min_tokens else None
        return running is None or running > self._stops.min_tokens

    def _rest(self) -> bytes:
        """An event with what is held back of each choice, for a stream that ends without finish reasons."""
        texts = {index: search.feed("", last=True) for index, search in self._searches.items()}
        choices = [{"index": index, "delta": {"content": text}} for index, text in texts.items() if text]
        return _with_choices(self._head, choices)

    def _closing(self) -> bytes:
        """The end of a stream that the backend has not ended."""
        end = b"" if self._marked else b"data: [DONE]\n\n"
        if self._strip_usage or self._counted_out:
            return end
        return _event({**self._head, "choices": [], "usage": _report(self.token_usage())}) + end


def reader_of(
    stops: StopStrings | None,
    *,
    strip_usage: bool,
    strip_counts: bool,
    prompts: int,
    choices: int,
    lost: LostThought | None,
    earlier: EarlierStreams,
) -> StreamReader:
    """A reader for a stream, which applies stop strings if there are any."""
    if stops is None:
        return StreamReader(
            strip_usage=strip_usage,
            strip_counts=strip_counts,
            prompts=prompts,
            choices=choices,
            lost=lost,
            earlier=earlier,
        )
    return StoppingReader(
        stops,
        strip_usage=strip_usage,
        strip_counts=strip_counts,
        choices=choices,
        lost=lost,
        earlier=earlier,
    )


def _report(usage: TokenUsage) -> dict[str, Any]:
    """What a client is told about the token usage of a stream."""
    told: dict[str, Any] = {**totals(usage.prompt or 0, usage.completion or 0)}
    if usage.reasoning is not None and not usage.reasoning_estimated:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return told


def _with_choices(chunk: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> bytes:
    """An event with the fields of a chunk and these choices; nothing if there are none."""
    return _event({**chunk, "choices": choices}) if choices else b""


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: " + encode(chunk) + b"\n\n"
