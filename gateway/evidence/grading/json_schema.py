"""Grades by a JSON Schema: whether the answer has JSON that it allows. Fetches no remote `$ref`."""

from __future__ import annotations

import json
import re
from typing import Any

from gateway.evidence.grading.grade import Grade, Grader, GraderError, ModelAnswer, graded, ungraded

_FENCE = re.compile(r"```(?:json\w*|JSON)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_MOST_STARTS = 300  # places where a value may begin that are tried


class SchemaGrader(Grader):
    """Right if the JSON in the answer is valid: all of the text, the last fenced block, or the last value."""

    name = "schema"
    needs_reference = False

    def __init__(self, schema: str) -> None:
        """`schema` is the text of a JSON Schema, Draft 2020-12 where it does not name another.

        Raises: GraderError.
        """
        try:
            from jsonschema.exceptions import SchemaError  # noqa: PLC0415 - of the extra `grade`
            from jsonschema.validators import Draft202012Validator, validator_for  # noqa: PLC0415
            from referencing import Registry  # noqa: PLC0415
        except ImportError:
            raise GraderError("`schema` needs: pip install 'thinkmeter[grade]'") from None
        try:
            parsed = json.loads(schema)
        except ValueError as error:
            raise GraderError(f"the schema is not JSON: {error}") from None
        kind = validator_for(parsed, default=Draft202012Validator)
        try:
            kind.check_schema(parsed)
        except SchemaError as error:
            raise GraderError(f"the schema is not valid: {error.message}") from None
        self._validator: Any = kind(parsed, registry=Registry())

    def _grade(self, prompt: str, reference: str, answer: ModelAnswer) -> Grade:  # noqa: ARG002
        from jsonschema.exceptions import best_match  # noqa: PLC0415
        from referencing.exceptions import Unresolvable  # noqa: PLC0415

        found = json_of(answer.text)
        if not found:
            return graded(False, "no JSON found")
        try:
            error = best_match(self._validator.iter_errors(found[0]))
        except Unresolvable as missing:
            return ungraded(f"the schema refers to {missing.ref}, which is not part of it")
        return graded(not error, f"{error.json_path}: {error.message}" if error else None)


def json_of(text: str) -> list[Any]:
    """The JSON value in an answer, in a list; an empty list if there is none."""
    for candidate in (text, *reversed(_FENCE.findall(text))):
        try:
            return [_strict(candidate)]
        except (ValueError, RecursionError):
            continue
    return _in_prose(text)[-1:]


def _in_prose(text: str) -> list[Any]:
    """The objects and arrays that stand in a text, outermost ones."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    values: list[Any] = []
    end = 0
    for start in [match.start() for match in re.finditer(r"[\[{]", text)][-_MOST_STARTS:]:
        if start < end:
            continue
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        values.append(value)
    return values


def _strict(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
