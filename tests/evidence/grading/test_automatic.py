"""Which grader a reference gets."""

from __future__ import annotations

import pytest

from gateway.evidence.grading.automatic import pick
from gateway.evidence.grading.grade import Grader, ModelAnswer
from gateway.evidence.grading.specs import grader_of

OPTIONS = "Which?\n(A) 12 km\n(B) dark green"


@pytest.mark.parametrize(
    ("prompt", "reference", "name"),
    [
        ("", "B", "choice"),
        ("", "(B)", "choice"),
        (OPTIONS, "Dark green", "choice"),
        (OPTIONS, "12 km", "choice"),
        ("", "42", "number"),
        ("", "-1,234.5 km", "number"),
        ("", "so 48 + 24 = 72\n#### 72", "number"),
        ("", r"\frac{1}{2}", "number"),
        ("", "50%", "number"),
        ("", "42 apples", "number"),
        ("", "$5", "number"),
        ("", r"\frac{\sqrt{3}}{2}", "math"),
        ("", "x^2 + 1", "math"),
        ("", "(1, 2]", "math"),
        ("", "x = 5", "math"),
        ("", "Paris", "exact"),
        ("", "12:30", "exact"),
        ("", "B flat", "exact"),
    ],
)
def test_pick(prompt: str, reference: str, name: str) -> None:
    assert pick(prompt, reference) == name


def test_grade_names_the_grader() -> None:
    grader = grader_of("auto")
    assert isinstance(grader, Grader)

    grades = [grader.grade("", reference, ModelAnswer("It is B, so 42")) for reference in ("42", "B", None)]

    assert [(grade.score, grade.grader) for grade in grades] == [(1, "number"), (1, "choice"), (None, None)]
    grader.close()
