"""How two answers are compared with each other."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.evidence import ShadowSettings
from gateway.evidence.grading.grade import ModelAnswer
from gateway.evidence.shadows.comparing import AnswerPair, ComparedPair, comparing_of


async def compare(grade: str, served: str, shadow: str, longer: bool = True) -> ComparedPair:
    settings = ShadowSettings.model_validate({"share": 1, "grade": grade, "budget": {"tokens": 1}})
    nothing: Any = None
    comparing = comparing_of(settings, nothing, nothing, nothing, lambda *_: None)
    try:
        return await comparing.compare(
            AnswerPair("tiny", "how many?", "how many?", ModelAnswer(served), ModelAnswer(shadow), longer)
        )
    finally:
        comparing.close()


@pytest.mark.parametrize(
    ("grade", "served", "shadow", "score"),
    [
        ("agreement", "The answer is 42.", "So: 41 + 1. Answer: 42", 1),
        ("agreement", "The answer is 42.", "The answer is 43.", 0),
        ("number", "about 1,000 of them", "#### 1000", 1),
        ("exact", "Paris", " paris ", 1),
        ("exact", "Paris", "London", 0),
        ("choice", "Answer: B", "(B)", 1),
        ("math", r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", 1),
        ("math", "7", "8", 0),
    ],
)
async def test_agreement(grade: str, served: str, shadow: str, score: float) -> None:
    """The longer rung's answer is the measure of the other one."""
    found = await compare(grade, served, shadow)
    assert (found.served, found.shadow) == (score, 1)
    found = await compare(grade, served, shadow, longer=False)
    assert (found.served, found.shadow) == (1, score)


async def test_no_answer_of_the_longer_rung() -> None:
    """Then nothing is known about the other one."""
    found = await compare("agreement", "42", "")
    assert (found.served, found.shadow) == (None, None)
    assert found.note


async def test_no_answer_of_the_shorter_rung() -> None:
    found = await compare("agreement", "", "42")
    assert (found.served, found.shadow) == (0, 1)
