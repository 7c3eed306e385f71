"""Token counts of one response, from whatever a backend reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

SLACK = 16
"""Reasoning tokens over a budget that still count as honoured: end marks, a closing phrase."""


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
    """Tokens of one answer. None is unknown and never zero.

    source: "backend" (its own count of the whole answer), "counted" (its running count or one token for
    every delta that passed, whichever is more) or "none".
    deltas: that passed, where nobody counted the whole answer.
    reasoning_estimated: the split was made here, because the backend did not say.
    truncated: the answer ended at the length limit before its first visible character.
    """

    prompt: int | None = None
    completion: int | None = None
    reasoning: int | None = None
    cached: int | None = None
    source: Literal["backend", "counted", "none"] = "none"
    deltas: int = 0
    reasoning_estimated: bool = False
    finish_reason: str | None = None
    truncated: bool = False


def valid_count(tokens: int | None) -> int | None:
    """A number of tokens, unless it can be none: a broken backend's -1 must not reach the metrics."""
    return tokens if tokens is not None and 0 <= tokens < 2**53 else None


def from_backend(usage: ReportedUsage, reasoning: int, visible: int) -> TokenUsage:
    """The backend's count; reasoning split off by proportion where the backend does not say.

    `reasoning` and `visible` are amounts in any one unit. A backend that reports 0 reasoning tokens beside
    reasoning text is not believed.
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
