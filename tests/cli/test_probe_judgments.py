"""What the probe makes of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.cli.probe_judgments import (
    PHRASE,
    Finding,
    ProbeAnswer,
    budget_flags,
    judge_arguments,
    judge_budget,
    judge_switch,
    read_answer,
    recommend,
)
from gateway.config.loader import builtin_families
from gateway.config.models import Family
from gateway.openai_api.usage import SLACK, TokenUsage

FAMILIES = {name: Family.model_validate(row) for name, row in builtin_families().items()}
QWEN = FAMILIES["qwen3"]
REFUSED = "status 400: thinking_token_budget is set but reasoning_config is not configured"


def answer(text: str = "4", *arguments: str, reasoning: int = 8, finish: str = "stop") -> ProbeAnswer:
    usage = TokenUsage(reasoning=reasoning, completion=reasoning + 4)
    usage.finish_reason = finish
    return ProbeAnswer(usage, text, arguments)


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (answer(reasoning=8 + SLACK), "holds"),
        (answer(reasoning=9 + SLACK), "ignored"),
        (answer(reasoning=0), "unclear"),
        (answer("<think>hm</think>4", reasoning=0), "unclear"),
        ("status 500: reasoning_config", "refused"),
        ("timeout", "refused"),
    ],
)
def test_budget(given: ProbeAnswer | str, result: str) -> None:
    """A budget holds within the slack. Without reasoning nothing can be told."""
    judgment = judge_budget(given, 8, QWEN)

    assert judgment.result == result
    assert bool(judgment.advice) == (given != "timeout" and result != "holds" and "<think>" not in str(given))


def test_refused_switch() -> None:
    """A family that is switched off by a budget of 0 needs the same flags as one that has a budget."""
    assert "--reasoning-config" in judge_switch(REFUSED, FAMILIES["deepseek-r1"]).advice
    assert judge_switch("timeout", QWEN).advice == ""
    assert judge_switch(answer(), QWEN).result == "ignored"


GOOD = '{"text": "a"}'


@pytest.mark.parametrize(
    ("tries", "result"),
    [
        ([answer("", GOOD)] * 3, "valid"),
        ([answer("", GOOD, GOOD)] * 3, "valid"),
        ([answer("", GOOD), answer("", '{"text": "a</think>'), answer("", GOOD)], "unsafe"),
        ([answer("", GOOD), answer("", '{"text": "a</think>b"}'), answer("", GOOD)], "unsafe"),
        ([answer("", "[]")] * 3, "unsafe"),
        ([answer("no call")] * 3, "unclear"),
        ([answer("", GOOD), answer("no call"), answer("", GOOD)], "unclear"),
        ([answer("", '{"text": "a', finish="length")] * 3, "unclear"),
        ([answer("", GOOD), "status 400: auto tool choice", answer("", GOOD)], "not offered"),
    ],
)
def test_arguments(tries: list[ProbeAnswer | str], result: str) -> None:
    """Arguments must be a JSON object without marks. What the token limit cut says nothing."""
    assert judge_arguments(tries, QWEN).result == result


def test_answers_by_a_schema() -> None:
    """For a schema the text itself must be valid."""
    assert judge_arguments([answer(GOOD)] * 3, QWEN, schema=True).result == "valid"
    assert judge_arguments([answer("t0")] * 3, QWEN, schema=True).result == "unsafe"
    assert judge_arguments([answer("t0")] * 3, QWEN, schema=True, allowed=True).result == "spoiled"


def found(backend: str, check: str, result: str) -> Finding:
    return Finding("m", backend, check, result)


CHECKS = frozenset({"tools", "schema"})
VALID = [found(at, check, "valid") for at in "ab" for check in CHECKS]


@pytest.mark.parametrize(
    ("findings", "allowed", "recommended"),
    [
        (VALID, frozenset(), True),
        (VALID, frozenset({"m"}), False),
        (VALID[:3], frozenset(), False),
        ([*VALID[:3], found("b", "schema", "unsafe")], frozenset(), False),
        ([*VALID, found("c", "alive", "no")], frozenset(), False),
    ],
)
def test_recommendation(findings: list[Finding], allowed: frozenset[str], recommended: bool) -> None:
    """Budgets with tools are recommended if every check was valid on every replica."""
    assert bool(recommend(findings, CHECKS, allowed)) == recommended


@pytest.mark.parametrize("name", [name for name, row in FAMILIES.items() if row.marks])
def test_flags(name: str) -> None:
    """The flags are JSON that vLLM reads: the family's marks, with the closing phrase before the end."""
    parser, config = budget_flags(FAMILIES[name]).split(" --reasoning-config ")
    start, end = FAMILIES[name].marks or ("", "")

    assert parser == f"--reasoning-parser {FAMILIES[name].parser}"
    assert json.loads(config.strip("'")) == {"reasoning_start_str": start, "reasoning_end_str": PHRASE + end}
    assert "'" not in config.strip("'")


@pytest.mark.parametrize("body", ["", "[]", '{"choices": [{"message": {"content": 5}}]}', '{"choices": 1}'])
def test_unreadable_answer(body: str) -> None:
    """What is no chat completion is no answer."""
    assert read_answer(body.encode()) is None


@pytest.mark.parametrize("message", [None, {}, {"content": None, "tool_calls": None}, {"tool_calls": [{}]}])
def test_empty_answer(message: Any) -> None:
    """An answer without text and tool calls is read as empty."""
    read = read_answer(json.dumps({"choices": [{"message": message}]}).encode())

    assert read
    assert (read.text, read.arguments, read.reasoning) == ("", (), 0)
