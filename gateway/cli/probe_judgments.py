"""What an answer to the probe shows, and what to change where something does not hold. No I/O."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from gateway.config.models import Family
from gateway.openai_api.responses import read_usage
from gateway.openai_api.thought_marks import lost_marks
from gateway.openai_api.usage import SLACK, TokenUsage

FAILED = frozenset(
    {"no", "missing", "refused", "ignored", "too long", "unreadable", "in the answer", "spoiled"}
)
"""Results that make the probe fail."""

PHRASE = "\nConsidering the limited time, I answer now.\n"
"""Tells a model that its thought was cut. Fewer tokens than `SLACK`, as it counts as reasoning."""

_BUDGET_FIELD = ("thinking_token_budget", "reasoning_config")  # in a refusal of the budget


@dataclass(frozen=True, slots=True)
class Finding:
    """One question to one backend: what was asked, the result in a word, and what was seen."""

    model: str
    backend: str
    check: str
    result: str
    detail: str = ""
    advice: str = ""
    """What to change; empty if nothing needs to."""


@dataclass(frozen=True, slots=True)
class Judgment:
    """The result of a check in a word, what was seen, and what to change."""

    result: str
    detail: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """The first choice of an answer."""

    usage: TokenUsage
    text: str
    arguments: tuple[str, ...]
    """The arguments of its tool calls, as text."""

    @property
    def reasoning(self) -> int:
        """Reasoning tokens."""
        return self.usage.reasoning or 0


class _Function(Struct):
    arguments: str | None = None


class _ToolCall(Struct):
    function: _Function | None = None


class _Message(Struct):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    message: _Message | None = None


class _Answer(Struct):
    choices: list[_Choice] = []


_answer = msgspec.json.Decoder(_Answer)


def read_answer(body: bytes) -> ProbeAnswer | None:
    """Read a chat completion; None if it cannot be read."""
    usage = read_usage(body)
    try:
        choices = _answer.decode(body).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if usage is None:
        return None
    message = (choices[0].message if choices else None) or _Message()
    calls = [call.function.arguments or "" for call in message.tool_calls or [] if call.function]
    return ProbeAnswer(usage, message.content or "", tuple(calls))


def judge_switch(answer: ProbeAnswer | str, family: Family) -> Judgment:
    """Whether thinking stays off when it is switched off; a text says why there is no answer."""
    if isinstance(answer, str):
        return Judgment("refused", answer, _budget_advice(family) if _names_budget(answer) else "")
    if answer.reasoning:
        advice = "thinking cannot be switched off so: is `family` the model's own?"
        return Judgment("ignored", f"{answer.reasoning} reasoning tokens", advice)
    return Judgment("holds", f"{answer.usage.completion} tokens, none of reasoning")


def judge_budget(answer: ProbeAnswer | str, budget: int, family: Family) -> Judgment:
    """Whether a backend keeps a thinking budget."""
    if isinstance(answer, str):
        return Judgment("refused", answer, _budget_advice(family) if _names_budget(answer) else "")
    if lost_marks(answer.text):
        return Judgment("unclear", "the thought is in the answer")
    if not answer.reasoning:
        advice = _start_with(parser_flag(family))
        return Judgment("unclear", "no reasoning was seen: is a reasoning parser set?", advice)
    if answer.reasoning > budget + SLACK:
        return Judgment("ignored", f"{answer.reasoning} reasoning tokens", _budget_advice(family))
    return Judgment("holds", f"{answer.reasoning} reasoning tokens")


def judge_separation(answers: Iterable[ProbeAnswer], family: Family) -> Judgment | None:
    """Whether thoughts are kept out of the answers; None without an answer."""
    texts = [answer.text for answer in answers]
    found = next(filter(None, map(lost_marks, texts)), None)
    if found:
        advice = _start_with(parser_flag(family))
        return Judgment("in the answer", f"{found} is in the text of an answer", advice)
    return Judgment("kept apart") if texts else None


def judge_arguments(
    answers: Sequence[ProbeAnswer | str], family: Family, *, schema: bool = False, allowed: bool = False
) -> Judgment:
    """Whether the arguments of tool calls, or answers by a schema, stay valid under tiny budgets.

    allowed: the model already sends budgets with tools, so that what is spoiled fails the probe.
    """
    refusals = [answer for answer in answers if isinstance(answer, str)]
    if refusals:
        return Judgment("not offered", refusals[0])
    complete = [
        answer
        for answer in answers
        if isinstance(answer, ProbeAnswer) and answer.usage.finish_reason != "length"
    ]
    values = [[answer.text] if schema else list(answer.arguments) for answer in complete]
    seen = [value for each in values for value in each if value]
    spoiled = [value for value in seen if not _valid(value, family)]
    if spoiled:
        cut = spoiled[0] if len(spoiled[0]) <= 80 else spoiled[0][:80] + "…"
        advice = "remove `budget_with_tools` from the model" if allowed else ""
        return Judgment(
            "spoiled" if allowed else "unsafe", f"{len(spoiled)} of {len(seen)} invalid: {cut}", advice
        )
    if len(seen) < len(answers):
        missing = "complete answers" if schema else "tool calls: is a tool parser set?"
        return Judgment("unclear", f"{len(seen)} of {len(answers)} {missing}")
    return Judgment("valid", f"{len(seen)} of {len(seen)} valid")


def _valid(value: str, family: Family) -> bool:
    """Whether arguments are a JSON object without a mark of a thought in it."""
    marks = family.marks or ("<think>", "</think>")
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict) and not any(mark.strip() in value for mark in marks)


def recommend(findings: Sequence[Finding], checks: frozenset[str], allowed: frozenset[str]) -> list[str]:
    """What to change, a line each, in the order of the findings.

    checks: those that must be valid on every replica before a model may send budgets with tools.
    allowed: models that do so already.
    """
    lines = [f"{each.model} {each.backend}: {each.advice}" for each in findings if each.advice]
    results: dict[str, list[str]] = defaultdict(list)
    backends: dict[str, set[str]] = defaultdict(set)
    for each in findings:
        backends[each.model].add(each.backend)
        if each.check in checks:
            results[each.model].append(each.result)
    lines += [
        f"{model}: `budget_with_tools: true` is safe, as far as these questions show"
        for model, found in results.items()
        if set(found) == {"valid"}
        and len(found) == len(checks) * len(backends[model])
        and model not in allowed
    ]
    return list(dict.fromkeys(lines))


def parser_flag(family: Family) -> str:
    """vLLM's flag that separates the thoughts of a family from its answers."""
    return f"--reasoning-parser {family.parser}" if family.parser else "its --reasoning-parser"


def budget_flags(family: Family) -> str:
    """vLLM's flags for a thinking budget, with a closing phrase that tells the model of the cut."""
    if family.marks is None:
        return parser_flag(family)
    start, end = family.marks
    marks = {"reasoning_start_str": start, "reasoning_end_str": f"{PHRASE}{end}"}
    return f"{parser_flag(family)} --reasoning-config '{json.dumps(marks)}'"


def _budget_advice(family: Family) -> str:
    return f"{_start_with(budget_flags(family))}, or set `thinking_budget: false` for the model"


def _names_budget(refusal: str) -> bool:
    return any(word in refusal for word in _BUDGET_FIELD)


def _start_with(flags: str) -> str:
    return f"start vLLM with {flags}"
