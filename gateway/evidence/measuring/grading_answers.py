"""Has the answers of a run graded, several at a time, beside each other's waiting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from gateway.evidence.grading.grade import Answer, Grade, Grader, GroupGrader, ungraded
from gateway.evidence.measuring.journal import GivenGrade, MeasuredAnswer
from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.evidence.measuring.work import MeasuredRung

_Task = Callable[[], list[tuple[MeasuredAnswer, Grade]]]


def grade_answers(
    grader: Grader | GroupGrader,
    prompts: Mapping[str, MeasuredPrompt],
    rungs: Sequence[MeasuredRung],
    answers: Iterable[MeasuredAnswer],
    *,
    by: str,
    at_once: int,
    keep: Callable[[GivenGrade], None],
) -> None:
    """Grade the answers and give each grade to `keep`, in this thread.

    by: the name of the grader. at_once: how many it gets at a time. An answer on which the grader crashes is
    not graded, and the others are.
    """
    if isinstance(grader, GroupGrader):
        tasks = _by_prompt(grader, prompts, rungs, answers)
    else:
        tasks = _one_by_one(grader, prompts, answers)
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="grading")
    try:
        for done in _results(pool, tasks, 4 * at_once):
            for answer, grade in done:
                keep(GivenGrade(*answer.key, by, grade.score, grade.note))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _results(
    pool: ThreadPoolExecutor, tasks: Iterator[_Task], most: int
) -> Iterator[list[tuple[MeasuredAnswer, Grade]]]:
    """The results as they come, with so many tasks waiting at most."""
    running: set[Future[list[tuple[MeasuredAnswer, Grade]]]] = set()
    while True:
        running |= {pool.submit(task) for task in islice(tasks, most - len(running))}
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _one_by_one(
    grader: Grader, prompts: Mapping[str, MeasuredPrompt], answers: Iterable[MeasuredAnswer]
) -> Iterator[_Task]:
    for answer in answers:
        prompt = prompts[answer.prompt]

        def grade(answer: MeasuredAnswer = answer, prompt: MeasuredPrompt = prompt) -> Grade:
            return grader.grade(prompt.text, prompt.reference, _said(answer))

        yield lambda grade=grade, answer=answer: [(answer, _safely(grade))]


def _by_prompt(
    grader: GroupGrader,
    prompts: Mapping[str, MeasuredPrompt],
    rungs: Sequence[MeasuredRung],
    answers: Iterable[MeasuredAnswer],
) -> Iterator[_Task]:
    place = {rung.name: rung.index for rung in rungs}
    groups: dict[str, dict[int, list[MeasuredAnswer]]] = defaultdict(lambda: defaultdict(list))
    for answer in sorted(answers, key=lambda each: (place[each.rung], each.sample)):
        groups[answer.prompt][place[answer.rung]].append(answer)
    for name, group in groups.items():

        def grade(group: Mapping[int, list[MeasuredAnswer]] = group, name: str = name) -> _Graded:
            said = {index: [_said(answer) for answer in each] for index, each in group.items()}
            try:
                grades = grader.grade_group(prompts[name].text, prompts[name].reference, said)
            except Exception as error:  # noqa: BLE001 - whatever a grader does, the others go on
                grades = {index: [_crashed(error)] * len(each) for index, each in group.items()}
            return [
                pair for index, each in group.items() for pair in zip(each, grades[index], strict=True)
            ]

        yield grade


_Graded = list[tuple[MeasuredAnswer, Grade]]


def _said(answer: MeasuredAnswer) -> Answer:
    return Answer(answer.text, cut=answer.finish == "length")


def _safely(grade: Callable[[], Grade]) -> Grade:
    try:
        return grade()
    except Exception as error:  # noqa: BLE001
        return _crashed(error)


def _crashed(error: Exception) -> Grade:
    return ungraded(f"the grader failed: {type(error).__name__}: {error}")
