"""Has a model compare pairs of answers, blind and in both orders. What asks the model is injected."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from gateway.evidence.grading.grade import Answers, Grade, GroupGrader, ModelAnswer
from gateway.evidence.grading.verdict import JudgedPair, JudgeMessage, comparison

Ask: TypeAlias = Callable[[list[JudgeMessage]], str]
"""Sends messages to a model and returns its text. Raises: JudgeFailed."""


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

    def compare(self, prompt: str, reference: str | None, one: str, other: str) -> JudgedPair:
        """Compare two answers. Waits for the judge twice: call it outside of the event loop."""
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
        score = None if pair.score is None else min(1.0, 2 * pair.score)
        return Grade(score, pair.note, verdicts=pair.verdicts)
