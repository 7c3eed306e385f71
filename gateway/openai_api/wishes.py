"""How clients say how much a model may think, in the dialects of several APIs. No I/O.

A wish is an upper bound. What cannot be read is no wish.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

_OFF = "none"
_OFF_MODES = frozenset(("disabled", "off", "none", "false", "chat", "no_think"))
"""Words for a mode in which the model does not think; `chat` is DeepSeek's."""
_UNDECIDED = frozenset(("", "auto", "default", "adaptive", "dynamic", "on", "true", "enabled", "yes"))
"""Words for an effort with which a client leaves the choice to the model."""


class Reasoning(Struct):
    """The `reasoning` object of OpenRouter and of OpenAI's Responses API."""

    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class Thinking(Struct):
    """Anthropic's `thinking` object."""

    type: str | None = None
    """`enabled`, `disabled`, or a word that leaves the choice to the model, such as `adaptive`."""
    budget_tokens: int | None = None


class ChatTemplate(Struct):
    """The chat template variables that control thinking, under the names of all model families."""

    enable_thinking: bool | None = None
    thinking: bool | None = None
    thinking_mode: str | None = None
    no_think: bool | None = None
    reasoning_effort: str | None = None
    thinking_effort: str | None = None
    thinking_budget: int | None = None

    @property
    def off(self) -> bool:
        """Thinking is switched off by any of the names."""
        switched = self.enable_thinking is False or self.thinking is False or self.no_think is True
        return switched or _is_off(self.thinking_mode)


class Wishes(Protocol):
    """The fields of a chat request that say how much to think."""

    reasoning_effort: str | None
    reasoning: Reasoning | str | bool | None
    thinking: Thinking | str | bool | None
    thinking_token_budget: int | None
    enable_thinking: bool | None
    thinking_budget: int | None
    chat_template_kwargs: ChatTemplate | None


def wishes_nothing(chat: Wishes) -> bool:
    """Whether the request has none of these fields, as most have none."""
    return (
        chat.reasoning_effort is None
        and chat.reasoning is None
        and chat.thinking is None
        and chat.thinking_token_budget is None
        and chat.enable_thinking is None
        and chat.thinking_budget is None
        and chat.chat_template_kwargs is None
    )


def _is_off(mode: str | None) -> bool:
    return mode is not None and mode.strip().lower() in _OFF_MODES


def efforts(chat: Wishes) -> list[str]:
    """All efforts that the request states."""
    stated = [chat.reasoning_effort]
    if chat.enable_thinking is False:
        stated.append(_OFF)
    if (reasoning := chat.reasoning) is not None:
        stated += _efforts_of_reasoning(reasoning)
    if (thinking := chat.thinking) is not None:
        stated.append(_effort_of_thinking(thinking))
    if (template := chat.chat_template_kwargs) is not None:
        stated += [_OFF] if template.off else [template.reasoning_effort, template.thinking_effort]
    return [
        word for effort in stated if effort is not None and (word := effort.strip()).lower() not in _UNDECIDED
    ]


def budgets(chat: Wishes) -> list[int]:
    """All budgets of reasoning tokens that the request states; a negative one means no bound."""
    stated = [chat.thinking_token_budget, chat.thinking_budget]
    if isinstance(chat.reasoning, Reasoning):
        stated.append(chat.reasoning.max_tokens)
    if isinstance(chat.thinking, Thinking):
        stated.append(chat.thinking.budget_tokens)
    if chat.chat_template_kwargs is not None:
        stated.append(chat.chat_template_kwargs.thinking_budget)
    return [budget for budget in stated if budget is not None and budget >= 0]


def _efforts_of_reasoning(reasoning: Reasoning | str | bool) -> list[str | None]:  # noqa: FBT001
    if isinstance(reasoning, Reasoning):
        return [_OFF if reasoning.enabled is False else None, reasoning.effort]
    return [reasoning if isinstance(reasoning, str) else None if reasoning else _OFF]


def _effort_of_thinking(thinking: Thinking | str | bool) -> str | None:  # noqa: FBT001
    if isinstance(thinking, Thinking):
        return _OFF if _is_off(thinking.type) else None
    return thinking if isinstance(thinking, str) else None if thinking else _OFF
