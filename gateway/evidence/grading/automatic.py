"""Picks a grader for each row, by its reference."""

from __future__ import annotations

import re

from gateway.evidence.grading.choice import options_of
from gateway.evidence.grading.exact import normalized
from gateway.evidence.grading.final_answer import reference_answer
from gateway.evidence.grading.grade import Grade, Grader, ModelAnswer
from gateway.evidence.grading.quantity import only_quantity

_LETTER = re.compile(r"\(?[A-Z]\)?[.)]?")
_LATEX = re.compile(
    r"\\[a-zA-Z]+|\$|\^|_\{|\bsqrt\b"
    r"|^[\[(][^\[\]()]*,[^\[\]()]*[\])]$"  # an interval or a point
    r"|[A-Za-z]\s*=|=\s*[A-Za-z]"
)


class AutomaticGrader(Grader):
    """A letter, or the text of an option → choice; a number → number; LaTeX → math; else exact."""

    name = "auto"
    slow = True

    def __init__(self, graders: dict[str, Grader]) -> None:
        """`graders` has `choice`, `number`, `math` and `exact`."""
        self._graders = graders

    def _check(self, reference: str) -> str | None:
        return self._graders[pick("", reference)].check(reference)

    def grade(self, prompt: str, reference: str | None, answer: ModelAnswer) -> Grade:
        """Grade an answer, and name the grader."""
        if not reference or not reference.strip():
            return super().grade(prompt, reference, answer)
        grader = self._graders[pick(prompt, reference)]
        grade = grader.grade(prompt, reference, answer)
        return Grade(grade.score, grade.note, grader.name)

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:
        raise NotImplementedError

    def close(self) -> None:
        """End what the graders hold."""
        for grader in self._graders.values():
            grader.close()


def pick(prompt: str, reference: str) -> str:
    """The name of the grader for a reference."""
    wanted = reference_answer(reference)
    if _LETTER.fullmatch(wanted) or normalized(wanted) in options_of(prompt).values():
        return "choice"
    if only_quantity(wanted):
        return "number"
    return "math" if _LATEX.search(wanted) else "exact"
