"""The token usage of one response, from what a backend reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

SLACK = 16
"""Reasoning tokens beyond a thinking budget that do not violate it: an end mark, a closing phrase."""


class CompletionDetails(Struct):
    reasoning_tokens: int | None = None


class PromptDetails(Struct):
    cached_tokens: int | None = None


class ReportedUsage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_tokens_details: PromptDetails | None = None


@dataclass(slots=True)
class TokenUsage:
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
    """The response reached the length limit before its first visible character."""


def valid_count(tokens: int | None) -> int | None:
    """The number, or None if it is impossible: the -1 of a broken backend must not reach the metrics."""
    return tokens if tokens is not None and 0 <= tokens < 2**53 else None


def from_backend(usage: ReportedUsage, reasoning: int, visible: int) -> TokenUsage:
    """The token usage that a backend reported, with reasoning tokens estimated if it reported none.

    The estimate divides the completion by the amounts of `reasoning` and `visible` text, both in the same
    unit. A report of 0 reasoning tokens is not believed if there was reasoning text.
    """
    tokens = TokenUsage(
        valid_count(usage.prompt_tokens), valid_count(usage.completion_tokens), source="backend"
    )
    if usage.completion_tokens_details:
        tokens.reasoning = valid_count(usage.completion_tokens_details.reasoning_tokens)
    if usage.prompt_tokens_details:
        tokens.cached = valid_count(usage.prompt_tokens_details.cached_tokens)
    if not tokens.reasoning and reasoning and tokens.completion is not None:
        tokens.reasoning = round(tokens.completion * reasoning / (reasoning + visible))
        tokens.reasoning_estimated = True
    return tokens
