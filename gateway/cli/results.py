"""The commands that measure heads: `evaluate` and `results`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.cli.heads import (
    EncoderKey,
    EncoderModel,
    EncoderPlace,
    Pooling,
    budgets_of,
    encoder_at,
    fail,
    head_of,
    names_of,
    need_extra,
    source_of,
)
from gateway.cli.replay import OwnOption, ReplayOption, RungsOption, replay_tables
from gateway.cli.terminal import err, out
from router_model.encoders.base import Encoder, EncoderError, Source
from router_model.training.outcomes import OutcomeError, OutcomeTable, read_table

commands = typer.Typer()


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        yield progress


def _tables(paths: Sequence[Path], tiers: Sequence[str] | None) -> list[OutcomeTable]:
    try:
        tables = [read_table(path, tiers) for path in paths]
    except OutcomeError as error:
        fail(error)
    for table in tables:
        if len(table.tiers) < 2:
            fail(f"{table.name}: only the tier {table.tiers[0]}; a comparison needs two")
    return tables


def machine() -> str:
    """The machine on which the figures are measured, in a few words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


@commands.command()
def evaluate(
    *,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="HEAD DATA...", help="A head and tables; with --folds tables alone."),
    ],
    folds: Annotated[
        int | None,
        typer.Option(min=2, max=20, help="Cross-validate a fresh head on each table instead."),
    ] = None,
    tiers: Annotated[
        str | None, typer.Option(help="Tiers to choose from, comma-separated; default all.")
    ] = None,
    replay: ReplayOption = False,
    rungs: RungsOption = None,
    own: OwnOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write a report with figures here.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the folds.")] = 0,
    place: EncoderPlace = None,
    model: EncoderModel = None,
    pooling: Pooling = "mean",
    key: EncoderKey = None,
) -> None:
    """Accuracy for tokens, of a head or of a fresh one cross-validated, beside fixed tiers and the oracle."""
    need_extra()
    source = source_of(place, model, pooling, key)
    head = None if folds else _evaluated(targets, source)
    if replay or rungs:
        if head is None or not replay or not rungs:
            fail("--replay needs a head and --rungs TIER=TOKENS,...")
        replay_tables(head, [Path(target) for target in targets[1:]], budgets_of(rungs), own, seed, as_json)
        return
    tables = _tables([Path(target) for target in (targets if folds else targets[1:])], names_of(tiers))
    encoder = encoder_at(source) if folds else None
    try:
        comparisons = [
            _cross_validated(table, folds, seed, encoder)
            if folds and encoder
            else _applied(head, table, seed)
            for table in tables
        ]
    except (OutcomeError, EncoderError) as error:
        fail(error)
    reports = [_reported(comparison) for comparison in comparisons]
    if out_dir is not None:
        _write(comparisons, out_dir)
    if as_json:
        whole = reports[0] if len(reports) == 1 else {"tables": reports}
        typer.echo(json.dumps(whole))
    else:
        for report in reports:
            _show(report)


def _evaluated(targets: Sequence[str], source: Source | None) -> Any:
    if len(targets) < 2:
        fail("evaluate HEAD DATA...: a head and at least one table, or tables alone with --folds 5")
    return head_of(targets[0], source, " (tables alone need --folds 5)" if Path(targets[0]).is_file() else "")


def _cross_validated(table: OutcomeTable, count: int, seed: int, encoder: Encoder) -> Any:
    from router_model.evaluation import experiment, saved_head
    from router_model.evaluation.ours import SHIPPED, HeadMethod

    method = HeadMethod(encoder=encoder)
    tests = list(experiment.parts(table, seed, count))
    if len(tests) < 2:
        fail(f"{table.name}: {len(table)} prompts are too few for {count} folds")
    with _bar() as progress:
        bar = progress.add_task(table.name, total=len(tests))
        cell = experiment.cross_fit(method, table, seed, tests, lambda _: progress.advance(bar))
    return saved_head.scored(table, f"{count}-fold cross-validation of a fresh head", SHIPPED, [cell])


def _applied(head: Any, table: OutcomeTable, seed: int) -> Any:
    from router_model.evaluation import saved_head

    kept, estimates, how = saved_head.estimate_unseen(head, table, seed)
    err.print(f"{table.name}: {how}", soft_wrap=True, highlight=False)
    return saved_head.scored(kept, how, head.version, [saved_head.score_estimates(estimates, kept)])


def _reported(comparison: Any) -> dict[str, Any]:
    from router_model.evaluation import saved_head

    ((method, cells),) = comparison.cells.items()
    return {
        "method": method,
        "table": comparison.table.name,
        "prompts": len(comparison.table),
        "setting": comparison.setting,
        "oracle": comparison.oracle_kind,
        "tiers": list(comparison.table.tiers),
        "points": saved_head.budget_points(cells, comparison.table),
    }


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{report['table']}: {report['method']}, {report['prompts']:,} prompts, {report['setting']}"
    table = Table(
        "extra budget", "tokens", "right", "best mix", "gain", f"oracle ({report['oracle']})", title=title
    )
    for point in report["points"]:
        gain = 100 * (point["accuracy"] - point["mix"])
        table.add_row(
            f"{point['extra_budget']:.0%}", f"{point['tokens']:.1f}", f"{point['accuracy']:.1%}",
            f"{point['mix']:.1%}", f"{gain:+.1f}", f"{point['oracle']:.1%}",
        )  # fmt: skip
    out.print(table)


def _write(comparisons: Sequence[Any], folder: Path) -> None:
    from router_model.report import suite

    with err.status("intervals and figures"):
        suite.write_comparisons(comparisons, folder)


@commands.command()
def results(
    *,
    data: Annotated[Path, typer.Option(help="Folder with the outcome tables; those missing are left out.")],
    tiny: Annotated[Path | None, typer.Option(help="The tiny reasoner's table.")] = None,
    page: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/results.md"),
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions with other folds.")] = 5,
    draws: Annotated[int, typer.Option(min=20, help="Resamples behind each interval.")] = 500,
    only: Annotated[str | None, typer.Option(help="Measure these settings anew and keep the others.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run was interrupted.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Tables measured at the same time.")] = os.cpu_count() or 1,
) -> None:
    """Measure every method on every table and write the page of results, its JSON and its figures."""
    need_extra()
    from threadpoolctl import threadpool_limits

    from gateway.simulation.replays import replay_rows
    from router_model.evaluation.catalogue import baselines, ours
    from router_model.evaluation.ours import SHIPPED
    from router_model.report import settings, suite

    plan = suite.MeasurementPlan(
        (*baselines(), *ours()), SHIPPED, range(seeds), draws, head_of("general", None)
    )
    wanted = names_of(only)
    try:
        chosen = [setting for setting in settings.SETTINGS if wanted is None or setting.key in wanted]
        tables = [(setting, table) for setting in chosen if (table := setting.whole(data, tiny)) is not None]
    except OutcomeError as error:
        fail(error)
    if not tables:
        fail(f"{data}: none of the tables of the report is here")
    kept = suite.Kept(page.with_suffix("") / "interrupted.json")
    if not resume:
        kept.path.unlink(missing_ok=True)
    with _bar() as progress, threadpool_limits(1):  # the trees spin on idle threads where cores are shared
        bar = progress.add_task("", total=suite.step_count(plan, tables))

        def tick(step: str) -> None:
            progress.update(bar, description=step, advance=1)

        measured = suite.measure(plan, tables, tiny, tick, kept, jobs)
        if wanted is None:
            rows = replay_rows(data, range(3), err.print)
            suite.keep_replays(list(rows), page.with_suffix(""))
    measured |= {"command": "make results", "machine": machine()}
    suite.write_results(suite.merged(measured, page.with_suffix("")) if wanted else measured, page)
    kept.path.unlink(missing_ok=True)
    err.print(f"{page}: {measured['minutes']} minutes", highlight=False)
