"""Prompts, rungs, answers and grades for the tests of measuring."""

from __future__ import annotations

from typing import Any

from gateway.config.models import Family, Tier
from gateway.evidence.measuring.journal import GivenGrade, MeasuredAnswer
from gateway.evidence.measuring.prompts import MeasuredPrompt, prompt_of
from gateway.evidence.measuring.work import MeasuredRung
from gateway.routing.tiers import TierLadder

RUNGS = (MeasuredRung("direct", 0, 0, 32), MeasuredRung("long", 1, 256, 32))


def ladder(rungs: int | None = 7) -> TierLadder:
    """A ladder of three tiers, of a family that takes a number."""
    tiers = {
        "direct": Tier(thinking=0, answer=32),
        "short": Tier(thinking=64, answer=32),
        "long": Tier(thinking=256, answer=32),
    }
    family = Family(no_thinking={}, thinking={"thinking_token_budget": "$budget"})
    return TierLadder(tiers, family, sends_thinking_budget=True, rungs=rungs)


def prompts(count: int, **fields: Any) -> list[MeasuredPrompt]:
    return [
        prompt_of({"id": f"p{n}", "prompt": f"question {n}", "answer": f"{n}"} | fields, f"f:{n}")
        for n in range(count)
    ]


def answer(prompt: str, rung: str = "direct", sample: int = 0, **fields: Any) -> MeasuredAnswer:
    given = {"at": 1.0, "seconds": 2.0, "text": "42", "tokens": 10, "finish": "stop"} | fields
    return MeasuredAnswer(prompt, rung, sample, **given)


def grade(prompt: str, rung: str = "direct", sample: int = 0, **fields: Any) -> GivenGrade:
    return GivenGrade(prompt, rung, sample, **({"by": "exact", "rubric": "r", "score": 1.0} | fields))
