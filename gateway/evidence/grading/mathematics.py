"""Grades mathematics: plain numbers at once, everything else with math-verify in a process of its own."""

from __future__ import annotations

from importlib.util import find_spec

from gateway.evidence.grading.final_answer import reference_answer
from gateway.evidence.grading.grade import Grade, Grader, ModelAnswer, ungraded
from gateway.evidence.grading.isolated import IsolatedGrader
from gateway.evidence.grading.number import NumberGrader
from gateway.evidence.grading.quantity import only_quantity

_MISSING = "needs math-verify: pip install 'thinkmeter[grade]'"


class MathGrader(Grader):
    """Right if the answer is equal to the reference as a number or as an expression."""

    name = "math"
    slow = True

    def __init__(self, processes: int, seconds: int, *, library: bool | None = None) -> None:
        """Library: whether math-verify is installed; None finds out."""
        present = find_spec("math_verify") is not None if library is None else library
        self._symbolic = IsolatedGrader("math", "", processes, seconds) if present else None
        self._number = NumberGrader()

    def _check(self, reference: str) -> str | None:
        if only_quantity(reference_answer(reference)):
            return None
        return self._symbolic.check(reference) if self._symbolic else _MISSING

    def grade(self, prompt: str, reference: str | None, answer: ModelAnswer) -> Grade:
        """Grade an answer. The reference is not checked twice."""
        if reference and only_quantity(reference_answer(reference)):
            by_number = self._number.grade(prompt, reference, answer)
            if by_number.score or not self._symbolic:
                return by_number
        if not self._symbolic:
            return ungraded(_MISSING) if reference else super().grade(prompt, reference, answer)
        return self._symbolic.grade(prompt, reference, answer)

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:
        raise NotImplementedError

    def close(self) -> None:
        """End the processes."""
        if self._symbolic:
            self._symbolic.close()
