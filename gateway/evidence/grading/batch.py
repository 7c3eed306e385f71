"""Grades many rows at once, in threads. A grader that fails at one row goes on with the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, TypeVar

from gateway.evidence.grading.grade import Answers, Grade, Grader, GroupGrader, ModelAnswer, ungraded

GradedRow: TypeAlias = tuple[str, str | None, ModelAnswer]
"""Prompt, reference, answer."""
GradedGroup: TypeAlias = tuple[str, str | None, Answers]
_Row = TypeVar("_Row")
_Result = TypeVar("_Result")


def grade_all(grader: Grader, rows: Iterable[GradedRow], concurrency: int = 8) -> Iterator[Grade]:
    """Grade rows, and yield the grades in the rows' order. Reads few more rows than it has graded."""
    return _in_threads(lambda row: grade_safely(grader, *row), rows, concurrency)


def grade_groups(
    grader: GroupGrader, groups: Iterable[GradedGroup], concurrency: int = 8
) -> Iterator[dict[int, list[Grade]]]:
    """Grade the answers to each prompt, and yield the grades in the prompts' order."""
    return _in_threads(lambda group: grade_group_safely(grader, *group), groups, concurrency)


def grade_safely(grader: Grader, prompt: str, reference: str | None, answer: ModelAnswer) -> Grade:
    """Grade an answer. If the grader fails, there is no grade."""
    try:
        return grader.grade(prompt, reference, answer)
    except Exception as error:  # noqa: BLE001 - whatever it is, the row is not wrong because of it
        return _failed(error)


def grade_group_safely(
    grader: GroupGrader, prompt: str, reference: str | None, answers: Answers
) -> dict[int, list[Grade]]:
    """Grade the answers to a prompt. If the grader fails, they have no grade."""
    try:
        return grader.grade_group(prompt, reference, answers)
    except Exception as error:  # noqa: BLE001
        return {rung: [_failed(error)] * len(samples) for rung, samples in answers.items()}


def _failed(error: Exception) -> Grade:
    return ungraded(f"the grader failed: {type(error).__name__}: {error}")


def _in_threads(
    grade: Callable[[_Row], _Result], rows: Iterable[_Row], concurrency: int
) -> Iterator[_Result]:
    with ThreadPoolExecutor(concurrency, "grading") as threads:
        waiting: deque[Future[_Result]] = deque()
        try:
            for row in rows:
                waiting.append(threads.submit(grade, row))
                if len(waiting) > 2 * concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
