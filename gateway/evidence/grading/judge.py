"""Has a model compare pairs of answers, blind and in both orders. What asks the model is injected."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from gateway.evidence.grading.grade import Answers, Grade, GroupGrader, ModelAnswer
from gateway.evidence.grading.verdict import (
    JudgedPair,
    JudgeMessage,
    PositionBias,
    compared,
    messages_for,
    position_bias,
    read_verdict,
)

Ask: TypeAlias = Callable[[list[JudgeMessage]], str]
"""Sends messages to a model and returns its text. Raises: JudgeFailed."""
_REMEMBERED = 100_000  # comparisons, for the position bias
_NO_VERDICT = "the judge gave no verdict"


class JudgeFailed(Exception):  # noqa: N818 - named after what happened
    """The judge could not be asked."""


class JudgeGrader(GroupGrader):
    """Compares each answer with one of the longest rung, which counts as right.

    An answer that is as good or better is right, and one that loses in both orders is wrong. One that wins in
    one order and loses in the other is as good: the judge cannot tell.
    """

    name = "judge"

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._comparisons: deque[JudgedPair] = deque(maxlen=_REMEMBERED)

    def compare(self, prompt: str, reference: str | None, one: str, other: str) -> JudgedPair:
        """Compare two answers. Waits for the judge twice: call it outside of the event loop."""
        comparison = self._compared(prompt, reference, one, other)
        self._comparisons.append(comparison)
        return comparison

    def bias(self) -> PositionBias:
        """How often the verdicts followed the position so far."""
        return position_bias(self._comparisons.copy())

    def grade_group(self, prompt: str, reference: str | None, answers: Answers) -> dict[int, list[Grade]]:
        """Grade the answers to one prompt. Sample i is compared with sample i of the longest rung."""
        longest = max(answers, default=0)
        return {
            rung: [
                Grade(1.0, "the measure of the others")
                if rung == longest
                else self._graded(prompt, reference, answer, answers[longest][at % len(answers[longest])])
                for at, answer in enumerate(samples)
            ]
            for rung, samples in answers.items()
        }

    def _graded(self, prompt: str, reference: str | None, answer: ModelAnswer, best: ModelAnswer) -> Grade:
        comparison = self.compare(prompt, reference, answer.text, best.text)
        score = comparison.score
        return Grade(None if score is None else min(1.0, 2 * score), comparison.note)

    def _compared(self, prompt: str, reference: str | None, one: str, other: str) -> JudgedPair:
        if one.strip() == other.strip():
            return JudgedPair(0.5, note="the answers are equal")
        if not one.strip() or not other.strip():
            return JudgedPair(1.0 if one.strip() else 0.0, note="empty answer")
        try:
            in_order = read_verdict(self._ask(messages_for(prompt, reference, one, other)))
            if not in_order:
                return JudgedPair(None, note=_NO_VERDICT)
            swapped = read_verdict(self._ask(messages_for(prompt, reference, other, one)))
        except JudgeFailed as failure:
            return JudgedPair(None, note=f"the judge failed: {failure}"[:300])
        return compared(in_order, swapped) if swapped else JudgedPair(None, note=_NO_VERDICT)
