"""What `thinkmeter measure` makes of the answers: grades, the outcome table, rows in the store, the page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway.cli.terminal import err, out
from gateway.evidence.grading.grade import Grader, GroupGrader
from gateway.evidence.measuring.grading_answers import grade_answers
from gateway.evidence.measuring.journal import AnswerJournal, GivenGrade
from gateway.evidence.measuring.outcomes import current_grades, outcome_rows, outcomes_of_run
from gateway.evidence.measuring.page import page_of
from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.evidence.measuring.rows import measured_rows
from gateway.evidence.measuring.session import MeasuredModel
from gateway.evidence.measuring.summary import HeadSummary, RunSummary, summarise_run
from gateway.evidence.measuring.wording import COLUMNS, cells, problems, sentences, title
from gateway.evidence.measuring.work import AnswerKey, MeasuredRung
from router_model.files import replace_file

if TYPE_CHECKING:
    from gateway.cli.measure_run import MeasureOptions

_AT_ONCE = 8  # answers that a grader gets at a time


@dataclass(frozen=True, slots=True)
class Results:
    """Where the results of a run go, and what they are of."""

    table: Path
    grader_name: str
    grader: Grader | GroupGrader
    prompts: Sequence[MeasuredPrompt]
    rungs: Sequence[MeasuredRung]


def grade_run(results: Results, journal: AnswerJournal, keys: Collection[AnswerKey], *, anew: bool) -> None:
    """Grade the answers of the run that this grader has not graded yet, or all of them with `anew`."""
    by = results.grader_name
    prompts = {prompt.id: prompt for prompt in results.prompts}
    answers = {key: answer for key, answer in journal.answers.items() if key in keys}
    done = {} if anew else current_grades(by, prompts, answers, journal.grades)
    open_ = [answer for key, answer in answers.items() if key not in done]
    if open_ and isinstance(results.grader, GroupGrader):  # the majority may have changed
        touched = {answer.prompt for answer in open_}
        open_ = [answer for answer in answers.values() if answer.prompt in touched]
    if not open_:
        return
    columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("grading", total=len(open_))

        def keep(grade: GivenGrade) -> None:
            journal.add(grade)
            bar.advance(task)

        grade_answers(results.grader, prompts, results.rungs, open_, by=by, at_once=_AT_ONCE, keep=keep)


def write_run_results(
    options: MeasureOptions,
    model: MeasuredModel,
    journal: AnswerJournal,
    keys: Collection[AnswerKey],
    results: Results,
) -> None:
    """Write the table, the rows, perhaps the head, and the page; print what the page says."""
    answers = {key: answer for key, answer in journal.answers.items() if key in keys}
    grades = current_grades(results.grader_name, model.prompts, answers, journal.grades)
    failed = [answer for key, answer in journal.failed.items() if key in keys]
    outcomes = outcomes_of_run(results.prompts, results.rungs, options.samples, answers, grades)
    rows = [orjson.dumps(row) for row in outcome_rows(outcomes)]
    replace_file(results.table, b"".join(row + b"\n" for row in rows))
    head = _calibrated(options, model, results) if options.calibrate and rows else None
    run = summarise_run(
        outcomes,
        list(answers.values()),
        failed,
        grades.values(),
        model=model.target.name,
        grader=results.grader_name,
        difference=options.difference,
        missing=len(keys) - len(answers) - len(failed),
        head=head,
    )
    page = results.table.with_suffix(".html")
    replace_file(page, page_of(run, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC").encode())
    _print(run)
    _store(model, journal, results, answers, grades)
    err.print(f"{results.table}: {len(rows):,} prompts; {page}", soft_wrap=True, highlight=False)


def _calibrated(options: MeasureOptions, model: MeasuredModel, results: Results) -> HeadSummary:
    from gateway.cli.measured_head import put_head_in_place

    with err.status("calibrating"):
        return put_head_in_place(model.snapshot, model.target, results.rungs, results.table, options.seed)


def _store(
    model: MeasuredModel,
    journal: AnswerJournal,
    results: Results,
    answers: dict[AnswerKey, Any],
    grades: dict[AnswerKey, GivenGrade],
) -> None:
    """Write the rows into the store of evidence, if there is one."""
    settings = model.snapshot.settings.evidence
    if settings is None:
        return
    from gateway.evidence.database import EvidenceUnavailable
    from gateway.evidence.measuring.storing import store_rows
    from gateway.evidence.redacting import Keeping

    keeping = Keeping(settings)
    try:
        rows = measured_rows(
            run=journal.head.run,
            model=model.target.name,
            grader=results.grader_name,
            prompts=model.prompts,
            rungs=model.rungs,
            answers=answers.values(),
            grades=grades,
            kept=keeping.text,
        )
        written, cause = store_rows(settings, rows)
    except EvidenceUnavailable as error:
        written, cause = 0, str(error)
    finally:
        keeping.close()
    err.print(f"{written:,} rows are in the store of evidence", highlight=False)
    if cause:
        err.print(f"the store of evidence did not take all rows: {cause}", style="yellow", highlight=False)
    if lost := keeping.lost.total():
        err.print(f"evidence.redact failed at {lost:,} prompts, so their text is not kept", style="yellow")


def _print(run: RunSummary) -> None:
    table = Table(*COLUMNS, title=title(run))
    for rung in run.rungs:
        table.add_row(*cells(rung))
    out.print(table)
    _lines(sentences(run), None)
    _lines(problems(run), "yellow")


def _lines(lines: Iterable[str], style: str | None) -> None:
    for line in lines:
        out.print(line, style=style, soft_wrap=True, highlight=False)
