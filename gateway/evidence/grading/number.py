"""Grades by the number that an answer gives. No I/O."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from gateway.evidence.grading.final_answer import reference_answer, stated, whole_words
from gateway.evidence.grading.grade import Grade, Grader, ModelAnswer, graded
from gateway.evidence.grading.plain_text import without_markup
from gateway.evidence.grading.quantity import Quantity, equal, quantities

_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_ASIDE = re.compile(r"\([^()]*\)")
_EQUALS = re.compile(r"[=≈]")
_SENTENCE = re.compile(r"[.!?;](?:\s|$)|\s(?:because|since|as)\s", re.IGNORECASE)
_ANOTHER = re.compile(r"\s*(?:,|or|and|und|oder)\s+")
_LIST_MARK = re.compile(r"^[ \t]*(?:\d{1,2}[.)]|#{1,6}[^\n]*\d[.:)])[ \t]+(?=\S)", re.MULTILINE)
_SHORT = 60  # characters of a reference that is no solution
_CITATION = re.compile(r"\[\d{1,2}\](?!\()")


class NumberGrader(Grader):
    """Right if the number is that of the reference, within a tolerance."""

    name = "number"

    def __init__(self, tolerance: float = 1e-6, absolute: float = 0.0) -> None:
        """`tolerance` is a share of the reference, `absolute` a difference. The larger one counts."""
        self._relative, self._absolute = Fraction(tolerance), Fraction(absolute)

    def _check(self, reference: str) -> str | None:
        return None if _expected(reference) else "the reference has no number"

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:  # noqa: ARG002
        expected, found = _expected(reference), given_numbers(answer)
        if not expected:
            raise AssertionError(reference)
        if not found:
            return graded(False, "no number found")
        if len(found) > 1:
            return graded(False, "several numbers are given as the answer")
        return graded(equal(expected, found[0], self._relative, self._absolute))


def given_numbers(answer: ModelAnswer) -> list[Quantity]:
    """What the answer gives as its number: one, or several where it does not commit itself; none at all.

    It is the number that the text states as its answer, else the last one: of a cut text, only a stated one.
    """
    text = whole_words(answer)
    if statement := stated(text):
        found = _of_statement(without_markup(statement))
        if found:
            return found
    return [] if answer.cut else _last(text)


def _expected(reference: str) -> Quantity | None:
    text = reference_answer(reference)
    found = _of_statement(without_markup(text)) if len(text) < _SHORT else given_numbers(ModelAnswer(text))
    return found[0] if len(found) == 1 else None


def _of_statement(statement: str) -> list[Quantity]:
    """The numbers in what follows "the answer is": "x = 5 (or so), because 2 + 3 = 5" has one."""
    without = _ASIDE.sub(" ", statement)
    if any(character.isdigit() for character in without):
        statement = without
    first = _SENTENCE.split(statement, maxsplit=1)[0]
    if not quantities(first):
        first = statement
    *_, after = _EQUALS.split(first)
    place = after if quantities(after) else first
    found = quantities(place)
    number = found[:1]
    for one, other in pairwise(found):
        between = place[one.end : other.start]
        if not _ANOTHER.fullmatch(between):
            break
        number.append(other)
    return number


def _last(text: str) -> list[Quantity]:
    """The last number of a text: a bold one of the last line that has any, else the last of that line."""
    text = _CITATION.sub(" ", _LIST_MARK.sub("", text))
    for line in reversed(text.split("\n")):
        found = quantities(without_markup(line))
        if found:
            bold = [number for part in _BOLD.findall(line) for number in quantities(without_markup(part))]
            return (bold or found)[-1:]
    return []
