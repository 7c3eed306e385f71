"""Graders by their names on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.evidence.grading.grade import Grader, GraderError, ModelAnswer
from gateway.evidence.grading.specs import grader_of


@pytest.mark.parametrize(
    "spec",
    [
        "exact",
        "number",
        "choice",
        "math",
        "auto",
        "regex:a:b",
        "command:true",
        "judge:http://127.0.0.1:1/v1#m",
        "agreement",
        "agreement:choice",
    ],
)
def test_every_grader_can_be_made(spec: str) -> None:
    grader = grader_of(spec)

    assert grader.name == spec.partition(":")[0]
    grader.close()


def test_tolerances() -> None:
    grader = grader_of("number:tolerance=0.1,absolute=5")
    assert isinstance(grader, Grader)

    assert [grader.grade("", "100", ModelAnswer(text)).score for text in ("110", "111")] == [1, 0]


def test_schema_file(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "array"}')
    grader = grader_of(f"schema:{tmp_path}/schema.json")
    assert isinstance(grader, Grader)

    assert [grader.grade("", None, ModelAnswer(text)).score for text in ("[1]", "{}")] == [1, 0]
    grader.close()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "is no grader. There are: exact, number"),
        ("nonsense", "is no grader"),
        ("regex", "needs an argument"),
        ("regex:(", "not a regular expression"),
        ("schema:no-such-file", "No such file"),
        ("exact:x", "takes no argument"),
        ("number:tolerance=x", "is not `tolerance=SHARE`"),
        ("number:tolerance=-1", "is not"),
        ("number:x=1", "is not"),
        ("command:no-such-command", "is not a command"),
        ("judge:http://127.0.0.1", "model"),
        ("judge:#m", "url"),
        ("agreement:x", "compare by one of"),
    ],
)
def test_errors(spec: str, message: str) -> None:
    with pytest.raises(GraderError, match=message):
        grader_of(spec)
