"""Graders that hang or crash cost one row, in a process of their own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.evidence.grading.grade import Grade, GraderError, ModelAnswer
from gateway.evidence.grading.isolated import IsolatedGrader
from gateway.evidence.grading.pattern import PatternGrader

HANGS = ModelAnswer("a" * 50 + "b")


@pytest.fixture
def grader() -> Iterator[IsolatedGrader]:
    made = IsolatedGrader("regex", "^(a+)+$", 2, 1, needs_reference=False)
    yield made
    made.close()


def test_a_row_that_hangs_gets_no_grade(grader: IsolatedGrader) -> None:
    """The rows after it are graded, by a new process."""
    rows = [ModelAnswer("aaa"), HANGS, ModelAnswer("aab"), ModelAnswer("aa")]
    with ThreadPoolExecutor(4) as threads:
        grades = list(threads.map(lambda answer: grader.grade("", None, answer), rows))

    assert grades == [Grade(1), Grade(None, "took longer than 1 s"), Grade(0), Grade(1)]


def test_a_crash_is_one_rows(grader: IsolatedGrader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot start is a crash, too."""
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/bin/false")
        assert grader.grade("", None, ModelAnswer("a")) == Grade(
            None, "the grader's process ended with status 1"
        )

    assert grader.grade("", None, ModelAnswer("a")).score == 1


def test_lone_surrogates(grader: IsolatedGrader) -> None:
    assert grader.grade("\ud800", None, ModelAnswer("\ud800")).score == 0


def test_closed_twice(grader: IsolatedGrader) -> None:
    grader.grade("", None, ModelAnswer("a"))
    grader.close()
    grader.close()


def test_pattern() -> None:
    grader = PatternGrader(r"(?i)\bparis\b")

    assert [grader.grade("", None, ModelAnswer(text)).score for text in ("It is Paris.", "Parisian", "")] == [
        1,
        0,
        0,
    ]


def test_pattern_with_the_reference() -> None:
    """The reference's own signs mean themselves."""
    grader = PatternGrader("^{reference}$")

    assert [grader.grade("", "a+b", ModelAnswer(text)).score for text in ("a+b", "aab")] == [1, 0]
    assert grader.grade("", None, ModelAnswer("a")).score is None


@pytest.mark.parametrize("pattern", ["(", "[a", "(?P<x>a)(?P<x>b)", "a{99999999999}"])
def test_broken_patterns(pattern: str) -> None:
    with pytest.raises(GraderError, match="is not a regular expression"):
        PatternGrader(pattern)
