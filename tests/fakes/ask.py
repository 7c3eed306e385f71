"""Reads a request for the fake model, and decides how many tokens the model says."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from tests.fakes.fault import Fault

DEFAULT_TOKENS = 16


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Ask(msgspec.Struct):
    """The fields of a request that change the response. Wrong types are refused, other fields are ignored."""

    model: str | None = None
    stream: bool | None = False
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[Any] | None = None
    input: str | list[Any] | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int | None = None
    stream_options: StreamOptions | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    thinking_token_budget: int | None = None
    tools: list[dict[str, Any]] | None = None
    logprobs: bool | int | None = None
    metadata: Any = None
    echo: bool | None = False

    @property
    def limit(self) -> int | None:
        """The most tokens to generate. Legacy completions have only `max_tokens`, with a default."""
        if self.messages is None:
            return DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def limit_name(self) -> str:
        chat = self.messages is not None and self.max_completion_tokens is not None
        return "max_completion_tokens" if chat else "max_tokens"

    @property
    def prompt_tokens(self) -> int:
        """One token per word."""
        texts = [message.get("content") for message in self.messages or ()] + [self.prompt, self.input]
        return sum(words(text) for text in texts)

    @property
    def thinks(self) -> bool:
        """Whether thinking is switched on. It is off by default; in the real Qwen3 it is on."""
        kwargs = self.chat_template_kwargs or {}
        return kwargs.get("enable_thinking") is True or kwargs.get("thinking") is True

    @property
    def budget(self) -> int | None:
        """The most reasoning tokens; None if unlimited, which vLLM writes as -1."""
        return None if self.thinking_token_budget == -1 else self.thinking_token_budget


class Speech(NamedTuple):
    """How many tokens the model says for one choice, and why it stops."""

    prompt: int
    reasoning: int
    content: int
    finish: str


def words(text: Any) -> int:
    """Count words in a string, or in the text parts of a list."""
    if isinstance(text, str):
        return len(text.split())
    if isinstance(text, list):
        return sum(words(part.get("text")) if isinstance(part, dict) else words(part) for part in text)
    return 0


def speech(ask: Ask, fault: Fault, *, max_model_len: int) -> Speech:
    """Split the limit: reasoning first, up to its budget, then content with what is left."""
    prompt = ask.prompt_tokens
    room = max(0, max_model_len - prompt)
    limit = room if ask.limit is None or fault.deaf else min(ask.limit, room)
    reasoning = 0
    if ask.thinks and ask.messages is not None:
        budget = limit if ask.budget is None else min(ask.budget, limit)
        wanted_reasoning = fault.reasoning
        if wanted_reasoning is None:
            wanted_reasoning = DEFAULT_TOKENS if ask.budget is None else ask.budget
        reasoning = min(wanted_reasoning, budget)
    left = limit - reasoning
    wanted = fault.tokens
    if wanted is None:
        wanted = DEFAULT_TOKENS if ask.limit is None else max(left, 1)
    finish = "length" if wanted > left else "tool_calls" if fault.tool_call else "stop"
    return Speech(prompt, reasoning, min(wanted, left), finish)
