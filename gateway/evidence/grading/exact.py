"""Grades by the text of an answer. No I/O."""

from __future__ import annotations

import re
import unicodedata

from gateway.evidence.grading.final_answer import reference_answer, stated
from gateway.evidence.grading.grade import Grade, Grader, ModelAnswer, graded

_AROUND = " \t\n*_`'\"“”‘’«».,;:!?。，！？$"
_TEXT = re.compile(r"\\text(?:bf|it)?\s*\{([^{}]*)\}")


class ExactGrader(Grader):
    """Right if the whole answer, or what it states as its answer, is the text of the reference.

    Case, white space, Markdown, and quotes and punctuation around the text make no difference.
    """

    name = "exact"

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:  # noqa: ARG002
        wanted = {normalized(reference), normalized(reference_answer(reference))}
        statement = stated(answer.text) or answer.text
        # "The answer is Paris. It is the capital." states the first sentence
        given = {normalized(text) for text in (answer.text, statement, re.split(r"\.\s", statement)[0])}
        return graded(not wanted.isdisjoint(given))


def normalized(text: str) -> str:
    """A text without what makes no difference to its meaning."""
    text = unicodedata.normalize("NFKC", _TEXT.sub(r"\1", text)).casefold()
    text = re.sub(r"\s+", " ", text.replace("**", "")).strip()
    return text.strip(_AROUND) or text
