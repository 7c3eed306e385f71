"""Many rows at once, of which some fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.evidence.grading.batch import grade_all, grade_groups
from gateway.evidence.grading.grade import Answers, Grade, Grader, GroupGrader, ModelAnswer


class Fragile(Grader):
    """Fails at some answers."""

    name = "fragile"
    needs_reference = False

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:
        if answer.text == "7":
            raise RuntimeError("seven")
        return Grade(float(answer.text))


class FragileGroup(GroupGrader):
    name = "fragile group"

    def grade_group(self, prompt: str, reference: str | None, answers: Answers) -> dict[int, list[Grade]]:
        if prompt == "bad":
            raise RecursionError
        return {rung: [Grade(1)] * len(samples) for rung, samples in answers.items()}


@pytest.mark.parametrize("concurrency", [1, 4, 50])
def test_a_failure_is_one_rows(concurrency: int) -> None:
    rows = [("", None, ModelAnswer(str(number))) for number in range(20)]

    grades = list(grade_all(Fragile(), rows, concurrency))

    failed = Grade(None, "the grader failed: RuntimeError: seven")
    assert grades == [failed if number == 7 else Grade(number) for number in range(20)]


def test_reads_few_rows_ahead() -> None:
    read = []

    def rows() -> Iterator[tuple[str, None, ModelAnswer]]:
        for number in range(1000):
            read.append(number)
            yield "", None, ModelAnswer("1")

    grades = grade_all(Fragile(), rows(), 2)
    next(grades)
    grades.close()

    assert len(read) < 10


def test_groups() -> None:
    answers = {0: [ModelAnswer("a")], 1: [ModelAnswer("b"), ModelAnswer("c")]}

    good, bad = grade_groups(FragileGroup(), [("good", None, answers), ("bad", None, answers)])

    assert good == {0: [Grade(1)], 1: [Grade(1)] * 2}
    assert [grade.score for grades in bad.values() for grade in grades] == [None] * 3
