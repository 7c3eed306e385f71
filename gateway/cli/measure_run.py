"""One run of `thinkmeter measure`: reads, asks, grades, writes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson
import typer

from gateway.cli.heads import fail, need_extra
from gateway.cli.measure_asking import Asked, ask_all
from gateway.cli.measure_results import Results, grade_run, replace_file, write_run_results
from gateway.cli.terminal import build_snapshot, err
from gateway.evidence.grading.grade import Grader, GraderError, GroupGrader
from gateway.evidence.grading.specs import grader_of
from gateway.evidence.measuring.asking import AskingTerms, RunStopped
from gateway.evidence.measuring.forcing import call_of
from gateway.evidence.measuring.grading_answers import own_graders
from gateway.evidence.measuring.journal import AnswerJournal, JournalError, RunHead
from gateway.evidence.measuring.prompt_files import read_prompts
from gateway.evidence.measuring.prompts import MeasuredPrompt, PromptsError, digest_of_prompts
from gateway.evidence.measuring.session import (
    BudgetChoiceError,
    MeasuredModel,
    limits_of,
    usual_concurrency,
)
from gateway.evidence.measuring.work import MeasuredRung, RungError, answers_of, drawn, left_to_do, rungs_of
from gateway.routing.call import Target
from gateway.snapshot import Snapshot

_INTERRUPTED = 130
_NOTES = 5  # lines about merged prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions:
    """The arguments of the command."""

    config: Path
    source: str
    model: str | None
    rungs: str | None
    samples: int
    grade: str | None
    limit: int | None
    seed: int
    out: Path | None
    concurrency: int | None
    fields: dict[str, Any]
    budget: str | None
    difference: float
    calibrate: bool
    grade_only: bool
    regrade: bool
    dry_run: bool
    yes: bool


def run_measure(options: MeasureOptions) -> None:
    """Run the command."""
    if options.calibrate:
        need_extra()
    snapshot = build_snapshot(options.config)
    try:
        target = _target(snapshot, options.model)
        rungs = rungs_of(target.ladder, options.rungs)
        limits = limits_of(snapshot.budgets, options.budget, target.name)
        table = _table_path(options, target.name)
        prompts = _prompts(options, snapshot, target.name, table)
        spec, grader = _grader(options.grade, prompts)
    except (PromptsError, RungError, BudgetChoiceError, GraderError) as error:
        fail(error)
    if options.calibrate and len(rungs) < 2:
        fail("--calibrate: one rung is nothing to choose from; measure at two or more")
    _try_fields(prompts[0], snapshot, target, options)
    chosen = drawn(prompts, options.seed, options.limit)
    model = MeasuredModel(
        snapshot, target, {each.id: each for each in chosen}, {rung.name: rung for rung in rungs}
    )
    terms = AskingTerms(
        options.concurrency or usual_concurrency(snapshot, target.name), options.fields, limits
    )
    journal_path = table.with_name(f"{table.stem}.answers.jsonl")
    keys = list(answers_of(chosen, rungs, options.samples, options.seed))
    if options.dry_run:
        ask_all(Asked(model, None, keys, terms, options.yes))
        return
    journal = _journal(journal_path, table, model, prompts, options)
    left = [] if options.grade_only else left_to_do(iter(keys), journal.answers)
    results = Results(table, spec, grader, chosen, rungs)
    try:
        if left:
            ask_all(Asked(model, journal, left, terms, options.yes))
        grade_run(results, journal, set(keys), anew=options.regrade)
        write_run_results(options, model, journal, set(keys), results)
    except KeyboardInterrupt:
        _stop(journal, "stopped", _INTERRUPTED)
    except RunStopped as error:
        _stop(journal, str(error), 1)
    finally:
        grader.close()
        journal.close()


def _stop(journal: AnswerJournal, why: str, status: int) -> NoReturn:
    """Say how to go on, and exit."""
    err.print(why, style="red", soft_wrap=True, highlight=False)
    err.print(
        f"{len(journal.answers):,} answers are kept in {journal.path}; the same command goes on from there",
        soft_wrap=True,
        highlight=False,
    )
    raise typer.Exit(status) from None


def _target(snapshot: Snapshot, name: str | None) -> Target:
    models = list(snapshot.settings.models)
    if name is None and len(models) > 1:
        fail(f"--model: name one of {', '.join(models)}")
    if name is not None and name not in models:
        fail(f"--model {name}: there are {', '.join(models)}")
    return snapshot.router.targets[name or models[0]]


def _prompts(options: MeasureOptions, snapshot: Snapshot, model: str, table: Path) -> list[MeasuredPrompt]:
    """All prompts of the source. Raises: PromptsError."""
    if options.source != "store":
        prompts, notes = read_prompts(Path(options.source))
    else:
        prompts, notes = _stored(options, snapshot, model, table), []
    for note in notes[:_NOTES]:
        err.print(note, style="yellow", soft_wrap=True, highlight=False)
    if len(notes) > _NOTES:
        err.print(f"and {len(notes) - _NOTES:,} more prompts that were there before", style="yellow")
    return prompts


def _stored(options: MeasureOptions, snapshot: Snapshot, model: str, table: Path) -> list[MeasuredPrompt]:
    """Prompts of the store. They are kept beside the table, as the store will soon have others.

    Raises: PromptsError.
    """
    from gateway.evidence.measuring.storing import prompts_of_store

    kept = table.with_name(f"{table.stem}.prompts.jsonl")
    if kept.exists():
        return read_prompts(kept)[0]
    prompts = prompts_of_store(snapshot.settings.evidence, model)
    if not options.dry_run:
        lines = [orjson.dumps({"id": each.id, "prompt": each.text}) + b"\n" for each in prompts]
        replace_file(kept, b"".join(lines))
    return prompts


def _grader(option: str | None, prompts: Sequence[MeasuredPrompt]) -> tuple[str, Grader | GroupGrader]:
    """The grader of the option, once it is known that it can grade these prompts.

    Raises: GraderError.
    """
    referenced = any(each.reference for each in prompts)
    spec = option or ("auto" if referenced else "agreement")
    grader = grader_of(spec)
    own_graders(prompts)
    if isinstance(grader, Grader):
        _warn_of_ungradable(grader, spec, [each for each in prompts if each.schema is None])
    if option is None and not referenced:
        err.print("no prompt has a reference answer, so answers are graded by agreement", style="yellow")
    return spec, grader


def _warn_of_ungradable(grader: Grader, spec: str, prompts: Sequence[MeasuredPrompt]) -> None:
    """Say which prompts the grader cannot grade, before anything is asked; stop if it can grade none."""
    problems = [(each, problem) for each in prompts if (problem := grader.check(each.reference))]
    if not problems:
        return
    first, problem = problems[0]
    said = f"--grade {spec}: {len(problems):,} of {len(prompts):,} prompts cannot be graded, such as"
    said += f" {first.place}: {problem}"
    if len(problems) == len(prompts):
        fail(said)
    err.print(said, style="yellow", soft_wrap=True, highlight=False)


def _try_fields(prompt: MeasuredPrompt, snapshot: Snapshot, target: Target, options: MeasureOptions) -> None:
    """Find out now if the gateway refuses the request fields."""
    from gateway.errors import GatewayError

    pool = snapshot.pools[target.name]
    try:
        call = call_of(prompt, target, pool, snapshot.settings, fields=options.fields)
    except GatewayError as error:
        fail(f"{prompt.place}: {error.message}")
    limits = call.request.client_limits
    if limits.effort is not None or limits.thinking is not None:
        fail("--fields: the thinking is what is measured, so no field may limit it")


def _table_path(options: MeasureOptions, model: str) -> Path:
    table = options.out or Path(f"{model.replace('/', '-')}.jsonl")
    if table.suffix != ".jsonl":
        fail(f"--out {table}: the name must end in .jsonl")
    if options.source != "store" and table.resolve() == Path(options.source).resolve():
        fail(f"--out {table}: this is the file of the prompts")
    return table


def _journal(
    path: Path,
    table: Path,
    model: MeasuredModel,
    prompts: Sequence[MeasuredPrompt],
    options: MeasureOptions,
) -> AnswerJournal:
    """The answers so far. The digest is of all prompts, so that a higher --limit adds to them."""
    if table.exists() and not path.exists():
        fail(f"{table} exists and has no {path.name} beside it; name another --out")
    name = model.target.name
    rungs: dict[str, tuple[int, int | None]] = {
        rung.name: (rung.thinking, rung.answer) for rung in _values(model.rungs)
    }
    head = RunHead(
        secrets.token_hex(8),
        name,
        model.snapshot.pools[name].served_name,
        digest_of_prompts(prompts),
        options.fields,
        rungs,
    )
    try:
        return AnswerJournal.open(path, head)
    except JournalError as error:
        fail(error)


def _values(rungs: Any) -> list[MeasuredRung]:
    return list(rungs.values())
