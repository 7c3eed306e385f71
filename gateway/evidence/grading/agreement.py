"""Grades without a reference: whether an answer says what most answers of the longest rung say. No I/O.

This is agreement, not correctness. Where the longest rung is wrong, agreeing with it counts as right. A
rung's loss of agreement is an upper bound on the right answers that it loses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from gateway.evidence.grading.choice import chosen, options_of
from gateway.evidence.grading.exact import normalized
from gateway.evidence.grading.final_answer import stated, whole_words
from gateway.evidence.grading.grade import Answers, Grade, GroupGrader, ModelAnswer, graded, ungraded
from gateway.evidence.grading.number import given_numbers
from gateway.evidence.grading.quantity import only_quantity

AnswerKind: TypeAlias = Literal["auto", "number", "choice", "exact"]
_DIGITS = 9  # significant ones of a number that must be equal


class AgreementGrader(GroupGrader):
    """1 for an answer of the majority, 0 for another, 1/k for one of k that are equally frequent."""

    name = "agreement"

    def __init__(self, kind: AnswerKind = "auto") -> None:
        self._kind = kind

    def grade_group(self, prompt: str, reference: str | None, answers: Answers) -> dict[int, list[Grade]]:  # noqa: ARG002
        """Grade the answers to one prompt. Those of the longest rung are compared with each other."""
        longest = max(answers, default=0)
        keys = {rung: [answer_key(prompt, one, self._kind) for one in all_] for rung, all_ in answers.items()}
        return {
            rung: [
                _agreement(key, _others(keys[longest], at) if rung == longest else keys[longest])
                for at, key in enumerate(samples)
            ]
            for rung, samples in keys.items()
        }

    def same(self, prompt: str, one: ModelAnswer, other: ModelAnswer) -> Grade:
        """Whether two answers to a prompt say the same."""
        keys = [answer_key(prompt, answer, self._kind) for answer in (one, other)]
        return _agreement(keys[0], keys[1:])


def answer_key(prompt: str, answer: ModelAnswer, kind: AnswerKind = "auto") -> str | None:
    """The final answer in a form in which equal ones are equal. None: the text gives no answer.

    `auto` takes the option where the prompt has options, else the number where the answer is one, else text.
    """
    if not answer.text.strip():
        return None
    readers: dict[str, Callable[[], str | None]] = {
        "choice": lambda: _option(prompt, answer),
        "number": lambda: _number(answer),
        "exact": lambda: normalized(stated(whole_words(answer)) or answer.text),
    }
    if kind == "auto":
        kind = "choice" if options_of(prompt) else "number" if _is_number(answer) else "exact"
    return readers[kind]()


def _option(prompt: str, answer: ModelAnswer) -> str | None:
    return "".join(sorted(chosen(answer, options_of(prompt)))) or None


def _number(answer: ModelAnswer) -> str | None:
    found = given_numbers(answer)
    if len(found) != 1:
        return None
    value = found[0].value
    return f"{float(value):.{_DIGITS}g}" if abs(value) < 10**300 else str(value)


def _is_number(answer: ModelAnswer) -> bool:
    statement = stated(whole_words(answer))
    return bool(statement and given_numbers(answer)) or only_quantity(answer.text[:200]) is not None


def _others(keys: Sequence[str | None], at: int) -> list[str | None]:
    return [*keys[:at], *keys[at + 1 :]] or list(keys)


def _agreement(key: str | None, keys: Sequence[str | None]) -> Grade:
    counts = Counter(one for one in keys if one is not None)
    if not counts:
        return ungraded("the longest rung gives no answer")
    if key is None:
        return graded(False, "no answer found")
    most = max(counts.values())
    majority = [one for one, count in counts.items() if count == most]
    return Grade(1 / len(majority) if key in majority else 0.0)
