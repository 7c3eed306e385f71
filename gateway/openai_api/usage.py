"""The token usage of one response, from what a backend reports."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from gateway.openai_api.counts import count_of, loose_object
from gateway.openai_api.event_stream import event_data

SLACK = 16
"""Reasoning tokens beyond a thinking budget that do not violate it: an end mark, a closing phrase."""


class ReportedUsage(Struct):
    """The token usage as a backend wrote it. Each value may be anything; `from_backend` reads them."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    reasoning_tokens: Any = None
    """Where SGLang reports them."""
    completion_tokens_details: Any = None
    prompt_tokens_details: Any = None


_NAMES = ("prompt", "completion", "reasoning", "cached")
_reported = msgspec.json.Decoder(ReportedUsage)
_UNREADABLE = ReportedUsage(completion_tokens="")


class TokenUsage(Struct, gc=False):
    """The tokens of one response. None means unknown, never zero."""

    prompt: int | None = None
    """Prompt tokens."""
    completion: int | None = None
    """Completion tokens, reasoning included."""
    reasoning: int | None = None
    """Reasoning tokens."""
    cached: int | None = None
    """Prompt tokens that the backend had in its prefix cache."""
    source: Literal["backend", "counted", "none"] = "none"
    """`backend` is its count of the whole response, `counted` its running count, or one per delta if more."""
    deltas: int = 0
    """How many deltas passed, if the source is `counted`."""
    reasoning_estimated: bool = False
    """The backend did not report `reasoning`, so it is a share of `completion` by length of text."""
    finish_reason: str | None = None
    """Why the response ended, such as `stop` or `length`."""
    complete: bool = False
    """The stream has ended as it should."""
    truncated: bool = False
    """The response ended before its first visible character: at the length limit, or inside the thought."""
    uncounted: tuple[str, ...] = ()
    """What the backend reported and could not be read: names of counts, or `response` for all of it."""
    lost_mark: str | None = None
    """The mark of a thought, such as `<think>`, that the backend sent as a part of the answer."""


def reported_usage(usage: Any) -> ReportedUsage | None:
    """The usage that a backend reported, from JSON text or from a parsed value; None if it reported none."""
    if isinstance(usage, bytes | msgspec.Raw):
        try:
            return _reported.decode(usage)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if bytes(usage) == b"null":
                return None
            usage = loose_object(event_data(b"data:" + usage)) or _UNREADABLE
    if isinstance(usage, dict):
        return msgspec.convert(usage, ReportedUsage)
    return _UNREADABLE if usage is not None and not isinstance(usage, ReportedUsage) else usage


_OTHER_ENDS = {None, "tool_calls", "function_call", "content_filter", "abort", "error"}


def cut_short(finish_reason: str | None, reasoning: int | None) -> bool:
    """Whether a response without visible text has lost its answer: at the length limit, or to its thought.

    A model that writes its end mark inside the thought ends with `stop`, like one that has nothing to say.
    """
    return finish_reason == "length" or (bool(reasoning) and finish_reason not in _OTHER_ENDS)


def from_backend(usage: ReportedUsage, reasoning: int, visible: int) -> TokenUsage:
    """The token usage that a backend reported, with reasoning tokens estimated if it reported none.

    The estimate divides the completion by the amounts of `reasoning` and `visible` text, both in the same
    unit. A report of 0 reasoning tokens is not believed if there was reasoning text.
    """
    thought, cached = usage.reasoning_tokens, None
    if usage.completion_tokens_details is not None:
        thought = _detail(usage.completion_tokens_details, "reasoning_tokens", thought)
    if usage.prompt_tokens_details is not None:
        cached = _detail(usage.prompt_tokens_details, "cached_tokens")
    reported = (usage.prompt_tokens, usage.completion_tokens, thought, cached)
    counts = tuple([None if value is None else count_of(value) for value in reported])
    prompt, completion, thought, cached = counts
    tokens = TokenUsage(prompt, completion, thought, cached, "backend")
    if counts != reported:
        read = zip(_NAMES, reported, counts, strict=True)
        tokens.uncounted = tuple(name for name, value, count in read if value is not None and count is None)
        if tokens.uncounted and not any(counts):
            tokens.source = "none"
    if completion is None and prompt is not None and (count_of(usage.total_tokens) or 0) > prompt:
        tokens.completion = (count_of(usage.total_tokens) or 0) - prompt
    if not tokens.reasoning and reasoning and tokens.completion is not None:
        tokens.reasoning = round(tokens.completion * reasoning / (reasoning + visible))
        tokens.reasoning_estimated = True
    return tokens


def _detail(details: Any, name: str, otherwise: Any = None) -> Any:
    """A value of the details. Details that are no object are returned as they are: they cannot be read."""
    if not isinstance(details, dict):
        return details or otherwise
    return details.get(name, otherwise)
