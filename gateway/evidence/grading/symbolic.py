"""Grades mathematics with the library math-verify. It may hang: see `gateway.evidence.grading.isolated`."""

from __future__ import annotations

import re
from typing import Any

from gateway.evidence.grading.final_answer import reference_answer, stated, whole_words
from gateway.evidence.grading.grade import Grade, Grader, ModelAnswer, graded

_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\begin\{")


class SymbolicGrader(Grader):
    """Right if the answer is equal to the reference as mathematics."""

    name = "math"

    def _check(self, reference: str) -> str | None:
        return None if _parsed(reference_answer(reference)) else "the reference cannot be read as mathematics"

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:  # noqa: ARG002
        from math_verify import verify  # noqa: PLC0415 - of the extra `grade`

        text = whole_words(answer)
        statement = stated(text)
        given = _parsed(statement) if statement else []
        if not given and not answer.cut:
            given = _parse(text)
        if not given:
            return graded(False, "no mathematics found")
        expected = _parsed(reference_answer(reference))
        return graded(verify(expected, given, timeout_seconds=None))


def _parsed(expression: str) -> list[Any]:
    return _parse(expression if _DELIMITED.search(expression) else f"${expression}$") or _parse(expression)


def _parse(text: str) -> list[Any]:
    from math_verify import parse  # noqa: PLC0415

    parsed: list[Any] = parse(text, parsing_timeout=None)
    return parsed
