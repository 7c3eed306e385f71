"""What a grader is, what it takes and what it says. No I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from gateway.evidence.grading.verdict import Verdicts

_NOTE = 300  # characters


class GraderError(ValueError):
    """A grader cannot be made as it was asked for."""


class ModelAnswer(Struct, frozen=True):
    """What a model said after its thought."""

    text: str
    cut: bool = False
    """The limit of tokens ended it."""


class Grade(Struct, frozen=True):
    """How good an answer is. 0 is wrong, 1 is right. None: it could not be graded, which is never "wrong"."""

    score: float | None
    note: str | None = None
    """Why there is no score, or why the answer is wrong where it does not show."""
    grader: str | None = None
    """The grader that `auto` picked for this answer."""
    verdicts: Verdicts | None = None
    """What a judge said, if it was asked."""


def ungraded(note: str) -> Grade:
    """No grade, with the reason."""
    return Grade(None, note[:_NOTE])


def graded(right: bool, note: str | None = None) -> Grade:  # noqa: FBT001 - the grade itself
    """The grade of an answer that is right or wrong. note: why it is wrong."""
    return Grade(1.0) if right else Grade(0.0, note[:_NOTE] if note else None)


class Grader(ABC):
    """Grades one answer on its own. Its methods may be called from several threads at once.

    A grader with `slow = True` waits for another process or a server: call it outside of the event loop.
    """

    name: str
    needs_reference = True
    slow = False

    def check(self, reference: str | None) -> str | None:
        """Why no answer can be graded by this reference; None if one can. Use it before anything is asked."""
        if not self.needs_reference:
            return None
        return self._check(reference) if reference and reference.strip() else "no reference answer"

    def grade(self, prompt: str, reference: str | None, answer: ModelAnswer) -> Grade:
        """Grade an answer to a prompt. An empty answer is wrong."""
        if problem := self.check(reference):
            return ungraded(problem)
        if not answer.text.strip():
            return Grade(0.0, "empty answer")
        return self._grade(prompt, reference or "", answer)

    def close(self) -> None:
        """End the processes that the grader holds."""
        return

    def _check(self, _reference: str) -> str | None:
        return None

    @abstractmethod
    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade: ...


Answers: TypeAlias = Mapping[int, Sequence[ModelAnswer]]
"""The samples of each rung, by its place on the ladder."""


class GroupGrader(ABC):
    """Grades all answers to one prompt against those of the longest rung. Needs no reference answer."""

    name: str

    @abstractmethod
    def grade_group(self, prompt: str, reference: str | None, answers: Answers) -> dict[int, list[Grade]]:
        """Grade the answers. The result has the order of `answers`."""

    def close(self) -> None:
        """End what the grader holds."""
        return
