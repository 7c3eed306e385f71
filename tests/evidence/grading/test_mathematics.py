"""The grader of mathematics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.evidence.grading.grade import ModelAnswer
from gateway.evidence.grading.mathematics import MathGrader

CASES = [
    ("2", r"$\boxed{\sqrt{4}}$", 1),
    (r"\frac{\sqrt{3}}{2}", r"so \boxed{\frac{\sqrt 3}{2}}", 1),
    (r"x^2+2x+1", r"The answer is $(x+1)^2$.", 1),
    (r"(1,2]", r"\boxed{(1, 2]}", 1),
    (r"(1,2]", r"\boxed{(1, 2)}", 0),
    (r"\{1,2\}", r"\boxed{\{2,1\}}", 1),
    (r"2\pi", r"$2\pi$", 1),
    (r"2\pi", r"$3\pi$", 0),
    ("x=5", "5", 1),
    (r"so $x = \boxed{\frac{1}{2}}$", "0.5", 1),
    ("12", "twelve", 1),
    (r"\sqrt{2}", "I do not know", 0),
]


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    made = MathGrader(1, 60)
    yield made
    made.close()


@pytest.mark.parametrize(("reference", "text", "score"), CASES)
def test_mathematics(grader: MathGrader, reference: str, text: str, score: float) -> None:
    assert grader.grade("", reference, ModelAnswer(text)).score == score


def test_references_are_checked(grader: MathGrader) -> None:
    assert grader.check(r"\sqrt{2}") is None
    assert grader.check("42") is None
    assert grader.check("") == "no reference answer"
    assert grader.check(None) == "no reference answer"


@pytest.mark.parametrize(("text", "score"), [(r"so \boxed{\sqrt{2}}, and now", 1), (r"so $\sqrt{2}$ is", 0)])
def test_cut_answers(grader: MathGrader, text: str, score: float) -> None:
    assert grader.grade("", r"\sqrt{2}", ModelAnswer(text, cut=True)).score == score


def test_without_the_library() -> None:
    """Plain numbers are graded, and the others say what to install."""
    grader = MathGrader(1, 10, library=False)

    assert grader.grade("", "12", ModelAnswer("12.0")).score == 1
    assert grader.check("12") is None
    missing = grader.grade("", r"\sqrt{2}", ModelAnswer(r"\sqrt{2}"))
    assert missing.score is None
    assert missing.note == grader.check(r"\sqrt{2}") == "needs math-verify: pip install 'thinkmeter[grade]'"
    assert grader.grade("", None, ModelAnswer("1")).note == "no reference answer"
    grader.close()
