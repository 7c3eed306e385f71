"""The grader of texts."""

from __future__ import annotations

import pytest

from gateway.evidence.grading.exact import ExactGrader
from gateway.evidence.grading.grade import ModelAnswer

GRADER = ExactGrader()


@pytest.mark.parametrize(
    "text",
    [
        "New York",
        "new  york",
        "**New York**",
        "“New York”",
        "New York.",
        "The answer is New York.",
        "Answer: New York",
        r"\boxed{\text{New York}}",
        "The answer is New York. It is large.",
        "Ｎｅｗ York",
        "New\nYork",
    ],
)
def test_right(text: str) -> None:
    assert GRADER.grade("", "New York", ModelAnswer(text)).score == 1


@pytest.mark.parametrize("text", ["", "York", "New York City", "Not New York", "New York or Boston"])
def test_wrong(text: str) -> None:
    assert GRADER.grade("", "New York", ModelAnswer(text)).score == 0


def test_signs_are_texts_too() -> None:
    """A reference of punctuation alone is not the empty text."""
    assert GRADER.grade("", "?", ModelAnswer("?")).score == 1
    assert GRADER.grade("", "?", ModelAnswer("!")).score == 0


def test_needs_a_reference() -> None:
    assert GRADER.grade("", None, ModelAnswer("New York")).score is None
