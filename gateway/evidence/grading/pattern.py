"""Grades by a regular expression. No I/O. A search may never end: see `gateway.evidence.grading.isolated`."""

from __future__ import annotations

import re

from gateway.evidence.grading.final_answer import reference_answer
from gateway.evidence.grading.grade import Grade, Grader, GraderError, ModelAnswer, graded

_PLACE = "{reference}"


class PatternGrader(Grader):
    """Right if the pattern is found in the answer. `{reference}` in it stands for the reference's text."""

    name = "regex"

    def __init__(self, pattern: str) -> None:
        """Raises: GraderError."""
        self.needs_reference = _PLACE in pattern
        try:
            re.compile(pattern.replace(_PLACE, "reference"))
        except (re.error, OverflowError, RecursionError) as error:
            raise GraderError(f"`{pattern}` is not a regular expression: {error}") from None
        self._pattern = pattern

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:  # noqa: ARG002
        wanted = self._pattern.replace(_PLACE, re.escape(reference_answer(reference)))
        return graded(re.search(wanted, answer.text) is not None)
