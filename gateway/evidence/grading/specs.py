"""Makes graders from what is written on a command line: `number:tolerance=0.01`, `judge:URL#MODEL`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, get_args

from pydantic import ValidationError

from gateway.config.evidence import JudgeSettings
from gateway.evidence.grading.agreement import AgreementGrader, AnswerKind
from gateway.evidence.grading.asking_judge import ask_judge
from gateway.evidence.grading.automatic import AutomaticGrader
from gateway.evidence.grading.choice import ChoiceGrader
from gateway.evidence.grading.command import CommandGrader
from gateway.evidence.grading.exact import ExactGrader
from gateway.evidence.grading.grade import Grader, GraderError, GroupGrader
from gateway.evidence.grading.isolated import IsolatedGrader
from gateway.evidence.grading.json_schema import SchemaGrader
from gateway.evidence.grading.judge import JudgeGrader
from gateway.evidence.grading.mathematics import MathGrader
from gateway.evidence.grading.number import NumberGrader
from gateway.evidence.grading.pattern import PatternGrader
from gateway.evidence.grading.sandbox import Limits

AnyGrader: TypeAlias = Grader | GroupGrader
_TOLERANCES = ("tolerance", "absolute")


def grader_of(
    spec: str,
    *,
    processes: int = 2,
    seconds: int = 10,
    judge_seconds: float = 120,
    judge_key: str | None = None,
) -> AnyGrader:
    """Make the grader that `NAME` or `NAME:ARGUMENT` asks for.

    processes: how many rows are graded at once by graders that need processes of their own.
    seconds: limit of a row. judge_seconds: limit of a judge's response. judge_key: the judge's API key.

    Raises: GraderError.
    """
    name, colon, argument = spec.partition(":")
    makers: dict[str, Callable[[], AnyGrader]] = {
        "exact": ExactGrader,
        "number": lambda: _number(argument),
        "choice": ChoiceGrader,
        "math": lambda: MathGrader(processes, seconds),
        "regex": lambda: _regex(argument, processes, seconds),
        "schema": lambda: _schema(argument, processes, seconds),
        "command": lambda: CommandGrader(argument, Limits(seconds=seconds)),
        "judge": lambda: _judge(argument, judge_key, judge_seconds),
        "agreement": lambda: _agreement(argument),
        "auto": lambda: AutomaticGrader(
            {
                "choice": ChoiceGrader(),
                "number": NumberGrader(),
                "math": MathGrader(processes, seconds),
                "exact": ExactGrader(),
            }
        ),
    }
    if name not in makers:
        raise GraderError(f"`{spec}` is no grader. There are: {', '.join(makers)}")
    if name in ("regex", "schema", "command", "judge") and not argument:
        raise GraderError(f"`{name}` needs an argument: `{name}:…`")
    if name in ("exact", "choice", "math", "auto") and colon:
        raise GraderError(f"`{name}` takes no argument")
    return makers[name]()


def _number(argument: str) -> Grader:
    values: dict[str, float] = {}
    for part in argument.split(",") if argument else []:
        key, _, text = part.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if key not in _TOLERANCES or not 0 <= value < math.inf:
            raise GraderError(f"`{part}` is not `tolerance=SHARE` or `absolute=DIFFERENCE`")
        values[key] = value
    return NumberGrader(**values)


def _regex(pattern: str, processes: int, seconds: int) -> Grader:
    needs_reference = PatternGrader(pattern).needs_reference  # its errors are this command's
    return IsolatedGrader("regex", pattern, processes, seconds, needs_reference=needs_reference)


def _schema(file: str, processes: int, seconds: int) -> Grader:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GraderError(f"{file}: {error}") from None
    try:
        SchemaGrader(text)
    except GraderError as error:
        raise GraderError(f"{file}: {error}") from None
    return IsolatedGrader("schema", text, processes, seconds, needs_reference=False)


def _judge(argument: str, key: str | None, seconds: float) -> GroupGrader:
    url, _, model = argument.partition("#")
    try:
        settings = JudgeSettings.model_validate({"url": url, "model": model, "api_key": key})
    except ValidationError as error:
        first = error.errors()[0]
        raise GraderError(f"`judge:{argument}`: {first['loc'][0]}: {first['msg']}") from None
    return JudgeGrader(ask_judge(settings, seconds))


def _agreement(argument: str) -> GroupGrader:
    kinds: dict[str, AnswerKind] = {kind: kind for kind in get_args(AnswerKind)}
    if argument and argument not in kinds:
        raise GraderError(f"`agreement:{argument}`: compare by one of {', '.join(kinds)}")
    return AgreementGrader(kinds[argument or "auto"])
