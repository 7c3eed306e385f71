"""`train`, `calibrate`, `evaluate` and `results`: the commands that make and measure heads."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from gateway.simulation.report import simulate_command
from router_model.artifact import ArtifactError
from router_model.encoders.base import Encoder, EncoderError, Source
from router_model.encoders.open import opened
from router_model.training.outcomes import OutcomeError, OutcomeTable, read

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
out, err = Console(markup=False), Console(stderr=True, markup=False)

Data = Annotated[list[Path], typer.Argument(help="Outcome tables: .jsonl, .jsonl.gz or .parquet.")]
Place = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="`hashed`, the directory of a sentence encoder (CTranslate2), or http://HOST:PORT for a"
        " server of embeddings such as vLLM. Default hashed; a head trained with another needs it again.",
    ),
]
Served = Annotated[str | None, typer.Option("--encoder-model", help="The model of an embedding server.")]
Pooling = Annotated[str, typer.Option("--pooling", help="Of a sentence encoder: mean or cls.")]
Secret = Annotated[
    str | None,
    typer.Option("--encoder-key", envvar="THINKMETER_ENCODER_KEY", help="API key of an embedding server."),
]


def _fail(message: object) -> NoReturn:
    err.print(str(message), style="red", soft_wrap=True, highlight=False)
    raise typer.Exit(2) from None


@contextmanager
def _shares() -> Iterator[Callable[[str, float], None]]:
    """A bar for work that tells which share of it is done."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task("training", total=1.0)
        yield lambda text, share: progress.update(bar, description=text, completed=share)


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        yield progress


def _names(tiers: str | None) -> list[str] | None:
    if tiers is None:
        return None
    names = [name.strip() for name in tiers.split(",")]
    if len(set(names)) < len(names) or not all(names):
        _fail(f"--tiers {tiers}: name each tier once, separated by commas")
    return names


def _tables(paths: Sequence[Path], tiers: Sequence[str] | None) -> list[OutcomeTable]:
    try:
        tables = [read(path, tiers) for path in paths]
    except OutcomeError as error:
        _fail(error)
    for table in tables:
        if len(table.tiers) < 2:
            _fail(f"{table.name}: only the tier {table.tiers[0]}; a comparison needs two")
    return tables


def _source(place: str | None, model: str | None, pooling: str, key: str | None) -> Source | None:
    return None if place is None else Source(place, model, pooling, key)


def _encoder(source: Source | None) -> Encoder:
    try:
        return opened(source)
    except EncoderError as error:
        _fail(error)


def _need_extra() -> None:
    missing = [name for name in ("matplotlib", "scipy", "sklearn") if find_spec(name) is None]
    if missing:
        _fail(f"{', '.join(missing)} missing; this needs: pip install '.[train]' in the checkout")


def machine() -> str:
    """What the figures were measured on, in a few words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


@cli.command()
def train(
    *,
    data: Data,
    out_dir: Annotated[Path, typer.Option("--out", help="Directory for the head; replaced as a whole.")],
    seed: Annotated[int, typer.Option(help="The same seed and tables give the same head.")] = 0,
    model_set: Annotated[
        str | None,
        typer.Option(help="Names for the tables' models, comma-separated; default the tables' names."),
    ] = None,
    place: Place = None,
    model: Served = None,
    pooling: Pooling = "mean",
    key: Secret = None,
) -> None:
    """Train a head on outcome tables."""
    _need_extra()
    from router_model.training import train as training

    encoder = _encoder(_source(place, model, pooling, key))
    try:
        tables = [read(path, partial=True) for path in data]
    except OutcomeError as error:
        _fail(error)
    names = _names(model_set) or [table.name for table in tables]
    if len(names) != len(tables):
        _fail(f"--model-set names {len(names)} models for {len(tables)} tables")
    try:
        with _shares() as tick:
            head = training.train(tables, out_dir, seed, names, tick, encoder)
    except (OutcomeError, EncoderError, ArtifactError, OSError) as error:
        _fail(error)
    err.print(f"{out_dir}: {head.version}, {len(head.sets)} sets of tiers", soft_wrap=True, highlight=False)


@cli.command("calibrate")
def calibrate_command(
    *,
    head_name: Annotated[str, typer.Argument(metavar="HEAD", help="`general`, `tiny` or a directory.")],
    data: Annotated[Path, typer.Argument(help="A few hundred prompts run at the model's tiers.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Directory for the new head; may be HEAD itself.")],
    model_set: Annotated[
        str | None,
        typer.Option("--model-set", help="The model as the gateway calls it; default DATA's name."),
    ] = None,
    tiers: Annotated[
        str | None, typer.Option(help="Tiers to learn, comma-separated; default all in DATA.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the folds.")] = 0,
    place: Place = None,
    key: Secret = None,
) -> None:
    """Teach a head the tiers of one more model from a few hundred outcomes."""
    _need_extra()
    from router_model.training import train as training
    from router_model.training.calibrate import calibrate

    head = _head(head_name, _source(place, None, "mean", key))
    try:
        table = read(data, _names(tiers), partial=tiers is None)
        table = replace(table, name=model_set or table.name)
        with err.status("calibrating"):
            saved = training.save(calibrate(head, table, seed), out_dir)
    except (OutcomeError, EncoderError, ArtifactError, OSError) as error:
        _fail(error)
    found = saved.manifest["metrics"][table.name]
    err.print(
        f"{out_dir}: {saved.version} knows {table.name} ({', '.join(table.tiers)}) from {len(table)} rows:"
        f" deviance {found['deviance']} on prompts left out, {found['deviance_of_constant']} of constants;"
        f" {found['gain_believed']:.0%} of the predicted differences believed",
        soft_wrap=True,
        highlight=False,
    )


@cli.command()
def evaluate(
    *,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="HEAD DATA...", help="A head and tables; with --folds tables alone."),
    ],
    folds: Annotated[
        int | None, typer.Option(min=2, max=20, help="Cross-validate a fresh head on each table instead.")
    ] = None,
    tiers: Annotated[
        str | None, typer.Option(help="Tiers to choose from, comma-separated; default all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Write a report with figures here.")] = None,
    seed: Annotated[int, typer.Option(help="Draws the folds.")] = 0,
    place: Place = None,
    model: Served = None,
    pooling: Pooling = "mean",
    key: Secret = None,
) -> None:
    """Accuracy for tokens, of a head or of a fresh one cross-validated, beside fixed tiers and the oracle."""
    _need_extra()
    source = _source(place, model, pooling, key)
    head = None if folds else _evaluated(targets, source)
    tables = _tables([Path(target) for target in (targets if folds else targets[1:])], _names(tiers))
    encoder = _encoder(source) if folds else None
    try:
        trials = [
            _cross_validated(table, folds, seed, encoder)
            if folds and encoder
            else _applied(head, table, seed)
            for table in tables
        ]
    except (OutcomeError, EncoderError) as error:
        _fail(error)
    found = [_reported(trial) for trial in trials]
    if out_dir is not None:
        _write(trials, out_dir)
    if as_json:
        whole = found[0] if len(found) == 1 else {"tables": found}
        typer.echo(json.dumps(whole))
    else:
        for one in found:
            _show(one)


def _evaluated(targets: Sequence[str], source: Source | None) -> Any:
    if len(targets) < 2:
        _fail("evaluate HEAD DATA...: a head and at least one table, or tables alone with --folds 5")
    return _head(targets[0], source, " (tables alone need --folds 5)" if Path(targets[0]).is_file() else "")


def _head(name: str, source: Source | None, hint: str = "") -> Any:
    from router_model.head import load_named

    try:
        return load_named(name, source)
    except (ArtifactError, OSError) as error:
        _fail(f"{error}{hint}")


def _cross_validated(table: OutcomeTable, count: int, seed: int, encoder: Encoder) -> Any:
    from router_model.evaluation import experiment as evaluation
    from router_model.evaluation.ours import SHIPPED, HeadMethod

    method = HeadMethod(encoder=encoder)
    tests = list(evaluation.parts(table, seed, count))
    if len(tests) < 2:
        _fail(f"{table.name}: {len(table)} prompts are too few for {count} folds")
    with _bar() as progress:
        bar = progress.add_task(table.name, total=len(tests))
        cell = evaluation.cross_fit(method, table, seed, tests, lambda _: progress.advance(bar))
    return evaluation.scored(table, f"{count}-fold cross-validation of a fresh head", SHIPPED, [cell])


def _applied(head: Any, table: OutcomeTable, seed: int) -> Any:
    from router_model.evaluation import experiment as evaluation

    kept, estimates, how = evaluation.apply(head, table, seed)
    err.print(f"{table.name}: {how}", soft_wrap=True, highlight=False)
    return evaluation.scored(kept, how, head.version, [evaluation.score(estimates, kept)])


def _reported(trial: Any) -> dict[str, Any]:
    from router_model.evaluation import experiment as evaluation

    ((method, cells),) = trial.cells.items()
    return {
        "method": method,
        "table": trial.table.name,
        "prompts": len(trial.table),
        "setting": trial.setting,
        "oracle": trial.oracle_kind,
        "tiers": list(trial.table.tiers),
        "points": evaluation.points(cells, trial.table),
    }


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{found['table']}: {found['method']}, {found['prompts']:,} prompts, {found['setting']}"
    shown = Table(
        "extra budget", "tokens", "right", "best mix", "gain", f"oracle ({found['oracle']})", title=title
    )
    for point in found["points"]:
        gain = 100 * (point["accuracy"] - point["mix"])
        shown.add_row(
            f"{point['extra_budget']:.0%}", f"{point['tokens']:.1f}", f"{point['accuracy']:.1%}",
            f"{point['mix']:.1%}", f"{gain:+.1f}", f"{point['oracle']:.1%}",
        )  # fmt: skip
    out.print(shown)


def _write(trials: Sequence[Any], folder: Path) -> None:
    from router_model.report import suite

    with err.status("intervals and figures"):
        suite.write_trials(trials, folder)


@cli.command()
def results(
    *,
    data: Annotated[Path, typer.Option(help="Folder with the outcome tables; those missing are left out.")],
    tiny: Annotated[Path | None, typer.Option(help="The tiny reasoner's table.")] = None,
    page: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/results.md"),
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions with other folds.")] = 5,
    draws: Annotated[int, typer.Option(min=20, help="Resamples behind each interval.")] = 300,
    only: Annotated[str | None, typer.Option(help="Measure these settings anew and keep the others.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run was interrupted.")] = False,
) -> None:
    """Measure every method on every table and write the page of results, its JSON and its figures."""
    _need_extra()
    from threadpoolctl import threadpool_limits

    from router_model.evaluation.catalogue import baselines, ours
    from router_model.evaluation.ours import SHIPPED
    from router_model.report import suite as all_results

    run = all_results.Run((*baselines(), *ours()), SHIPPED, range(seeds), draws)
    wanted = _names(only)
    try:
        chosen = [one for one in all_results.SETTINGS if wanted is None or one.key in wanted]
        tables = [(one, table) for one in chosen if (table := one.table(data, tiny)) is not None]
    except OutcomeError as error:
        _fail(error)
    if not tables:
        _fail(f"{data}: none of the tables of the report is here")
    kept = all_results.Kept(page.with_suffix("") / "interrupted.json")
    if not resume:
        kept.path.unlink(missing_ok=True)
    with _bar() as progress, threadpool_limits(1):  # the trees spin on idle threads where cores are shared
        bar = progress.add_task("", total=all_results.steps(run, tables))

        def tick(step: str) -> None:
            progress.update(bar, description=step, advance=1)

        found = all_results.measure(run, tables, tiny, tick, kept)
    found |= {"command": "make results", "machine": machine()}
    all_results.write(all_results.merged(found, page.with_suffix("")) if wanted else found, page)
    kept.path.unlink(missing_ok=True)
    err.print(f"{page}: {found['minutes']} minutes", highlight=False)


cli.command("simulate")(simulate_command)


if __name__ == "__main__":
    cli()
