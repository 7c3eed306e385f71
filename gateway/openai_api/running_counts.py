"""Token counts that a backend sends in every chunk of a stream."""

from __future__ import annotations

import re
from typing import Any

from gateway.openai_api.counts import count_of, loose_object, strict_json
from gateway.openai_api.event_stream import EVENT_END, event_data
from gateway.openai_api.usage import ReportedUsage, reported_usage

# These patterns find fields without parsing the JSON, because a block may hold hundreds of events. Text that
# the model writes cannot match them: inside a JSON string, quotes and line ends are escaped.

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

_INDEX = re.compile(rb'"choices":\s*\[\s*\{\s*"index":\s*(\d+)')
"""The index of the choice that an event belongs to, as in data: {"choices":[{"index":0,"delta":{…}}]}"""


class RunningCounts:
    """The latest running count of each choice."""

    def __init__(self, prompts: int) -> None:
        """prompts: how many prompts the request has."""
        self._prompts = prompts
        self._counts: dict[bytes, bytes] = {}
        """By the index of the choice."""
        self.latest = 0
        """How many counts the latest block had."""
        self._counted_in = b""
        """The latest block from which running counts were removed."""

    def __bool__(self) -> bool:
        return bool(self._counts)

    @property
    def removed(self) -> bool:
        """Running counts were removed from the stream."""
        return bool(self._counted_in)

    def take(self, block: bytes, *, strip: bool) -> bytes:
        """Record the running counts of a block; with `strip`, remove them from it."""
        parts = _COUNT.split(block)  # bytes between counts at even positions, counts at odd ones
        counts = parts[1::2]
        self.latest = len(counts)
        if not counts:
            return block
        indices = _INDEX.findall(block)
        if len(indices) == len(counts):
            self._counts.update(zip(indices, counts, strict=True))
        else:  # some events have no count, or a choice that does not begin with its index: pair by event
            for event in EVENT_END.split(block):
                if count := _COUNT.search(event):
                    self.note(event, count[1])
        if not strip:
            return block
        self._counted_in = block
        return b"".join([*(part.rstrip(b", ") for part in parts[:-1:2]), parts[-1]])

    def repeat(self, index: bytes, event: bytes, count: bytes, *, strip: bool) -> None:
        """Record the running count of an event that repeats another; `strip`: it was removed."""
        self._counts[index] = count
        if strip:
            self._counted_in = event

    def note(self, event: bytes, count: bytes) -> None:
        """Record the running count of an event."""
        self._counts[index_of(event)] = count

    def of(self, index: int) -> int | None:
        """The completion tokens of one choice; None if no number is known."""
        usage = reported_usage(self._counts.get(b"%d" % index))
        return count_of(usage.completion_tokens) if usage else None

    def total(self) -> ReportedUsage:
        """The sum over all choices; `completion_tokens` is None if none has a number."""
        if not self._counts:
            return ReportedUsage()
        usages = [usage for count in self._counts.values() if (usage := reported_usage(count))]
        completion = [count for usage in usages if (count := count_of(usage.completion_tokens)) is not None]
        reasoning = [_reasoning(usage.completion_tokens_details) for usage in usages]
        return ReportedUsage(
            prompt_tokens=next((usage.prompt_tokens for usage in usages), None)
            if self._prompts == 1
            else None,
            completion_tokens=sum(completion) if completion else None,
            completion_tokens_details={"reasoning_tokens": sum(reasoning)},
        )

    def usage_event(self) -> bytes:
        """The last event with a running count, without its choices: `{"id":…,"choices":[],"usage":{…}}`."""
        events = reversed(EVENT_END.split(self._counted_in))
        last = next((event for event in events if _COUNT.search(event)), b"")
        chunk = loose_object(event_data(last))
        if chunk is None:
            return b""
        if len(self._counts) > 1:  # the event counts the tokens of one choice only
            total = self.total()
            prompt, completion = count_of(total.prompt_tokens), count_of(total.completion_tokens)
            chunk["usage"] = totals(prompt or 0, completion or 0)
        return b"data: " + strict_json(chunk | {"choices": []}) + b"\n\n"


def index_of(event: bytes) -> bytes:
    """The index of the choice that an event belongs to; 0 if it names none."""
    if found := _INDEX.search(event):
        return found[1]
    choices = (loose_object(event_data(event)) or {}).get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    index = count_of(choice.get("index")) if isinstance(choice, dict) else None
    return b"%d" % (index or 0)


def _reasoning(details: Any) -> int:
    return (count_of(details.get("reasoning_tokens")) or 0) if isinstance(details, dict) else 0


def totals(prompt: int, completion: int) -> dict[str, int]:
    """The token usage as a client is told it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
