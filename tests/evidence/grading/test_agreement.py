"""Agreement with the majority of the longest rung."""

from __future__ import annotations

import pytest

from gateway.evidence.grading.agreement import AgreementGrader, answer_key
from gateway.evidence.grading.grade import ModelAnswer

OPTIONS = "Which?\n(A) red\n(B) green"


def scores(answers: dict[int, list[str]], prompt: str = "asked") -> dict[int, list[float | None]]:
    groups = {rung: [ModelAnswer(text) for text in texts] for rung, texts in answers.items()}
    return {
        rung: [grade.score for grade in grades]
        for rung, grades in AgreementGrader().grade_group(prompt, None, groups).items()
    }


def test_majority() -> None:
    """Answers of the longest rung are compared with the others of that rung, not with themselves."""
    answers = {0: ["The answer is 41", "42.0"], 9: ["The answer is 42.", r"\boxed{42}", "42", "Answer: 7"]}

    assert scores(answers) == {0: [0, 1], 9: [1, 1, 1, 0]}


def test_equally_frequent_answers_share() -> None:
    assert scores({0: ["1", "2", "3"], 9: ["1", "2"]}) == {0: [0.5, 0.5, 0], 9: [0, 0]}


def test_one_sample_is_compared_with_itself() -> None:
    assert scores({0: ["1", ""], 9: ["1"]}) == {0: [1, 0], 9: [1]}


def test_nothing_to_agree_with() -> None:
    assert scores({0: ["1"], 9: ["", ""]}) == {0: [None], 9: [None, None]}


def test_two_answers() -> None:
    grader = AgreementGrader()

    assert grader.same("asked", ModelAnswer("It is Paris. Answer: Paris"), ModelAnswer("Paris.")).score == 1
    assert grader.same(OPTIONS, ModelAnswer("(A)"), ModelAnswer("The answer is red.")).score == 1
    assert grader.same(OPTIONS, ModelAnswer("(A)"), ModelAnswer("B")).score == 0


@pytest.mark.parametrize(
    ("prompt", "one", "other"),
    [("", "0.5", "1/2"), ("", "$1,000", "1000"), ("", "Yes.", "yes"), (OPTIONS, "B", "green")],
)
def test_equal_keys(prompt: str, one: str, other: str) -> None:
    assert answer_key(prompt, ModelAnswer(one)) == answer_key(prompt, ModelAnswer(other))


def test_kinds() -> None:
    assert answer_key("", ModelAnswer("so 6 × 7 = 42"), "number") == "42"
    assert answer_key("", ModelAnswer("so it is (C)"), "choice") == "C"
    assert answer_key("", ModelAnswer("no number"), "number") is None
