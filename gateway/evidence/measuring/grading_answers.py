"""Has the answers of a run graded."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.evidence.grading.batch import grade_all, grade_groups
from gateway.evidence.grading.grade import Grade, Grader, GraderError, GroupGrader, ModelAnswer
from gateway.evidence.grading.json_schema import SchemaGrader
from gateway.evidence.measuring.journal import GivenGrade, MeasuredAnswer
from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.evidence.measuring.work import MeasuredRung

_Keep = Callable[[GivenGrade], None]


def own_graders(prompts: Iterable[MeasuredPrompt]) -> dict[str, Grader]:
    """The graders of the prompts that have a JSON Schema of their own, by its text.

    Raises: GraderError, with the place of the prompt.
    """
    found: dict[str, Grader] = {}
    for prompt in prompts:
        text = json.dumps(prompt.schema)
        if prompt.schema is not None and text not in found:
            try:
                found[text] = SchemaGrader(text)
            except GraderError as error:
                raise GraderError(f"{prompt.place}: {error}") from None
    return found


def grade_answers(
    grader: Grader | GroupGrader,
    prompts: Mapping[str, MeasuredPrompt],
    rungs: Sequence[MeasuredRung],
    answers: Iterable[MeasuredAnswer],
    *,
    by: str,
    at_once: int,
    keep: _Keep,
) -> None:
    """Grade the answers and give each grade to `keep`, in this thread.

    A prompt with a JSON Schema of its own is graded by that. An answer on which a grader fails is not graded,
    and the others are.

    by: the name of the grader. at_once: how many answers are graded at a time.
    """

    def given(answer: MeasuredAnswer, grade: Grade) -> None:
        rubric = prompts[answer.prompt].rubric
        keep(GivenGrade(*answer.key, by, rubric, grade.score, grade.note, grade.verdicts))

    if isinstance(grader, GroupGrader):
        _in_groups(grader, prompts, rungs, answers, at_once, given)
        return
    by_grader: dict[Grader, list[MeasuredAnswer]] = defaultdict(list)
    own = own_graders(prompts.values())
    for answer in answers:
        by_grader[own.get(json.dumps(prompts[answer.prompt].schema), grader)].append(answer)
    for each, theirs in by_grader.items():
        asked = [(prompts[answer.prompt], answer) for answer in theirs]
        rows = ((prompt.text, prompt.reference, _said(answer)) for prompt, answer in asked)
        for answer, grade in zip(theirs, grade_all(each, rows, at_once), strict=True):
            given(answer, grade)


def _in_groups(  # noqa: PLR0917
    grader: GroupGrader,
    prompts: Mapping[str, MeasuredPrompt],
    rungs: Sequence[MeasuredRung],
    answers: Iterable[MeasuredAnswer],
    at_once: int,
    given: Callable[[MeasuredAnswer, Grade], None],
) -> None:
    """Grade all answers to a prompt together."""
    place = {rung.name: rung.index for rung in rungs}
    groups: dict[str, dict[int, list[MeasuredAnswer]]] = defaultdict(lambda: defaultdict(list))
    for answer in sorted(answers, key=lambda each: (place[each.rung], each.sample)):
        groups[answer.prompt][place[answer.rung]].append(answer)
    rows = (
        (
            prompts[name].text,
            prompts[name].reference,
            {index: [_said(answer) for answer in each] for index, each in group.items()},
        )
        for name, group in groups.items()
    )
    for group, grades in zip(groups.values(), grade_groups(grader, rows, at_once), strict=True):
        for index, each in group.items():
            for answer, grade in zip(each, grades[index], strict=True):
                given(answer, grade)


def _said(answer: MeasuredAnswer) -> ModelAnswer:
    return ModelAnswer(answer.text, cut=answer.finish == "length")
