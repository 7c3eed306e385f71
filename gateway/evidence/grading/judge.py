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
    comparison,
    position_bias,
)

Ask: TypeAlias = Callable[[list[JudgeMessage]], str]
"""Sends messages to a model and returns its text. Raises: JudgeFailed."""
_REMEMBERED = 100_000  # comparisons, for the position bias


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
        pair = self._compared(prompt, reference, one, other)
        self._comparisons.append(pair)
        return pair

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
        pair = self.compare(prompt, reference, answer.text, best.text)
        return Grade(None if pair.score is None else min(1.0, 2 * pair.score), pair.note)

    def _compared(self, prompt: str, reference: str | None, one: str, other: str) -> JudgedPair:
        steps = comparison(prompt, reference, one, other)
        try:
            messages = next(steps)
            while True:
                messages = steps.send(self._ask(messages))
        except StopIteration as end:
            pair: JudgedPair = end.value
            return pair
        except JudgeFailed as failure:
            return JudgedPair(None, note=f"the judge failed: {failure}"[:300])
