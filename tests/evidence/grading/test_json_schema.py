"""The grader of JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.evidence.grading.grade import GraderError, ModelAnswer
from gateway.evidence.grading.json_schema import SchemaGrader, json_of

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": 1}', [{"a": 1}]),
        ("[1, 2]", [[1, 2]]),
        ("3", [3]),
        ('Here it is:\n```json\n{"a": 1}\n```\nDone.', [{"a": 1}]),
        ('```json\n{"a": 1}\n```\nNo:\n```json\n{"a": 2}\n```', [{"a": 2}]),
        ('```\n{"a": 1}', [{"a": 1}]),
        ('I say {"a": {"b": [1]}} and no more', [{"a": {"b": [1]}}]),
        ('First {"a": 1}, then {"a": 2}.', [{"a": 2}]),
        ('A brace { and {"a": "}"}', [{"a": "}"}]),
        ('{"a": NaN}', []),
        ('{"a": 1', []),
        ("no JSON", []),
        ("[" * 10_000, []),
    ],
)
def test_json_is_found(text: str, values: list[Any]) -> None:
    assert json_of(text) == values


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"name": "Ann", "age": 3}', 1),
        ('{"name": "Ann", "age": -3}', 0),
        ('{"age": 3}', 0),
        ("Ann is 3", 0),
        ("", 0),
    ],
)
def test_schema(text: str, score: float) -> None:
    assert SchemaGrader(json.dumps(PERSON)).grade("", None, ModelAnswer(text)).score == score


def test_note_says_what_is_wrong() -> None:
    grade = SchemaGrader(json.dumps(PERSON)).grade("", None, ModelAnswer('{"name": "Ann", "age": -3}'))

    assert grade.note == "$.age: -3 is less than the minimum of 0"


def test_remote_references_are_not_fetched(free_port: int) -> None:
    grader = SchemaGrader(json.dumps({"$ref": f"http://127.0.0.1:{free_port}/schema.json"}))

    grade = grader.grade("", None, ModelAnswer("{}"))

    assert grade.score is None
    assert "which is not part of it" in str(grade.note)


@pytest.mark.parametrize("schema", ["", "{", '{"type": "nonsense"}', "[]"])
def test_broken_schemas(schema: str) -> None:
    with pytest.raises(GraderError, match="the schema is not"):
        SchemaGrader(schema)
