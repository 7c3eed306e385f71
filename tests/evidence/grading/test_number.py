"""The grader of numbers: which number is the answer, and whether it is right."""

from __future__ import annotations

import pytest

from gateway.evidence.grading.grade import Grade, ModelAnswer
from gateway.evidence.grading.number import NumberGrader

GRADER = NumberGrader()


def score(reference: str, text: str, *, cut: bool = False) -> float | None:
    return GRADER.grade("", reference, ModelAnswer(text, cut)).score


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("42", "42"),
        ("42", "It is 42."),
        ("42", "#### 42"),
        ("42", "The answer is 42, because 6 × 7 = 42 and 2 + 2 = 4"),
        ("42", "The answer is 42. I used 3 steps."),
        ("42", "**Answer:** 42 apples\n\nLet me know if you have 2 more questions"),
        ("42", "The total is **42** (that is 7 more than 35)."),
        ("42", "Answer: 6 × 7 = 42 apples"),
        ("42", r"Step 1: so $\boxed{42}$, as 6 × 7 shows"),
        ("42", r"\boxed{x = 42}"),
        ("42", r"\boxed{42 \text{ apples}}"),
        ("6", "The answer is not 5 but 6."),
        ("10", "The answer is 10 (or 5 for each of 2)"),
        ("100", "1. First, add.\n2. The sum is 100"),
        ("42", "It is 42 [1]"),
        ("48/2 = 24\n#### 72", "72"),
        (r"so $\boxed{72}$", "72"),
        ("7", "There are seven."),
        ("1234", "The total is $1,234.00."),
        ("0.3333333", "1/3"),
        ("16", "The area is $4^2 = 16$ square units."),
        ("12 km", "The answer is 12,000 metres."),
        ("0", "zero"),
    ],
)
def test_right(reference: str, text: str) -> None:
    assert score(reference, text) == 1


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("42", "41"),
        ("42", "-42"),
        ("42", "42000"),
        ("42", "The answer is 41, not 42"),
        ("3", "The answer is 3 or 4"),
        ("5", r"\boxed{3, 5}"),
        ("42", "I do not know."),
        ("42", "First 42, then 43"),
        ("0.33", "1/3"),
        ("12 km", "12 m"),
        ("42", ""),
        ("42", " \n"),
    ],
)
def test_wrong(reference: str, text: str) -> None:
    assert score(reference, text) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So \boxed{42}. Let me che", 1),
        ("The answer is 42. Let me", 1),
        ("The answer is 42", 0),  # perhaps of 425
        ("The answer is 42.", 0),  # perhaps of 42.5
        ("First, 6 × 7 = 42, and th", 0),  # a number on the way
        (r"So \boxed{42", 0),
    ],
)
def test_of_a_cut_answer_only_what_it_states_counts(text: str, expected: float) -> None:
    assert score("42", text, cut=True) == expected


def test_tolerance() -> None:
    """A share of the reference, or a difference."""
    relative, absolute = NumberGrader(tolerance=0.01), NumberGrader(absolute=0.5)

    assert [relative.grade("", "200", ModelAnswer(text)).score for text in ("202", "203")] == [1, 0]
    assert [absolute.grade("", "0", ModelAnswer(text)).score for text in ("0.5", "-0.6")] == [1, 0]
    assert [GRADER.grade("", "0", ModelAnswer(text)).score for text in ("0.0", "0.0001")] == [1, 0]


@pytest.mark.parametrize("reference", [None, "", " ", "no number", "3 or 4"])
def test_without_a_reference_number_nothing_is_graded(reference: str | None) -> None:
    assert GRADER.check(reference)
    assert GRADER.grade("", reference, ModelAnswer("42")) == Grade(None, GRADER.check(reference))


@pytest.mark.parametrize(
    "text",
    ["9", "1,", "1 ", "-", "(", "$", "\\boxed{", "answer ", "not ", "*", "1.000", "a\n", "\\text{", "one "],
)
def test_long_answers_end(text: str) -> None:
    """No run of the same signs makes the search slow. The suite's time limit notices one that does."""
    GRADER.grade("", "1", ModelAnswer(text * (100_000 // len(text))))
