"""The commands `train` and `calibrate`, and what the commands for heads share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from gateway.cli.terminal import err
from router_model.artifact import ArtifactError
from router_model.encoders.base import Encoder, EncoderError, Source
from router_model.encoders.open import opened
from router_model.head import Head
from router_model.training.outcomes import OutcomeError, OutcomeTable, read_table

if TYPE_CHECKING:  # needs scipy
    from router_model.training.prior import Ladder

commands = typer.Typer()

Data = Annotated[list[Path], typer.Argument(help="Outcome tables: .jsonl, .jsonl.gz or .parquet.")]
EncoderPlace = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="`hashed`, the directory of a sentence encoder (CTranslate2), or http://HOST:PORT for a"
        " server of embeddings such as vLLM. Default hashed; a head trained with another needs it again.",
    ),
]
EncoderModel = Annotated[
    str | None, typer.Option("--encoder-model", help="The model of an embedding server.")
]
Pooling = Annotated[str, typer.Option("--pooling", help="Of a sentence encoder: mean or cls.")]
EncoderKey = Annotated[
    str | None,
    typer.Option("--encoder-key", envvar="THINKMETER_ENCODER_KEY", help="API key of an embedding server."),
]


def fail(message: object) -> NoReturn:
    """Print a mistake of the user and exit with status 2."""
    err.print(str(message), style="red", soft_wrap=True, highlight=False)
    raise typer.Exit(2) from None


@contextmanager
def _shares() -> Iterator[Callable[[str, float], None]]:
    """A progress bar for work that reports the share that is done."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task("training", total=1.0)
        yield lambda text, share: progress.update(bar, description=text, completed=share)


def names_of(tiers: str | None) -> list[str] | None:
    """The names in a comma-separated option."""
    if tiers is None:
        return None
    names = [name.strip() for name in tiers.split(",")]
    if len(set(names)) < len(names) or not all(names):
        fail(f"--tiers {tiers}: name each tier once, separated by commas")
    return names


def source_of(place: str | None, model: str | None, pooling: str, key: str | None) -> Source | None:
    """Where the options say the encoder is."""
    return None if place is None else Source(place, model, pooling, key)


def encoder_at(source: Source | None) -> Encoder:
    """Open the encoder of the options."""
    try:
        return opened(source)
    except EncoderError as error:
        fail(error)


def need_extra() -> None:
    """Fail unless the training libraries are installed."""
    missing = [name for name in ("matplotlib", "scipy", "sklearn") if find_spec(name) is None]
    if missing:
        fail(f"{', '.join(missing)} missing; this needs: pip install '.[train]' in the checkout")


@commands.command("train")
def train_command(
    *,
    data: Data,
    out_dir: Annotated[Path, typer.Option("--out", help="Directory for the head; replaced as a whole.")],
    seed: Annotated[int, typer.Option(help="The same seed and tables give the same head.")] = 0,
    model_set: Annotated[
        str | None,
        typer.Option(help="Names for the tables' models, comma-separated; default the tables' names."),
    ] = None,
    rungs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE:TIER=TOKENS,...",
            help="The thinking budgets of a reasoning model's tiers in a table, 0 for none; TABLE alone if it"
            " states them. May be repeated. Three such models give the head a prior of its own for models"
            " that it never saw, and it is refused if it does harm in front of them.",
        ),
    ] = None,
    place: EncoderPlace = None,
    model: EncoderModel = None,
    pooling: Pooling = "mean",
    key: EncoderKey = None,
) -> None:
    """Train a head on outcome tables."""
    need_extra()
    from router_model.training import train as training

    encoder = encoder_at(source_of(place, model, pooling, key))
    try:
        tables = [read_table(path, partial=True) for path in data]
    except OutcomeError as error:
        fail(error)
    names = names_of(model_set) or [table.name for table in tables]
    if len(names) != len(tables):
        fail(f"--model-set names {len(names)} models for {len(tables)} tables")
    try:
        ladders = list(_ladders(tables, rungs or []))
        with _shares() as progress:
            head = training.train(tables, out_dir.name, seed, names, progress, encoder, ladders)
        _refuse_harm(head, ladders)
        head = training.save(head, out_dir)
    except (OutcomeError, EncoderError, ArtifactError, OSError) as error:
        fail(error)
    err.print(f"{out_dir}: {head.version}, {len(head.sets)} sets of tiers", soft_wrap=True, highlight=False)
    for name in head.sets:
        _print_fallback(name, head.manifest["metrics"][name]["fit"])


def _ladders(tables: Sequence[OutcomeTable], options: Sequence[str]) -> Iterator[Ladder]:
    """The reasoning models that the options describe."""
    from router_model.training.prior import Ladder

    by_name = {table.name: table for table in tables}
    for option in options:
        name, colon, rungs = option.partition(":")
        if name not in by_name:
            fail(f"--rungs {option}: begin with the name of a table, one of {', '.join(by_name)}")
        yield Ladder(by_name[name], budgets_of(rungs) if colon else by_name[name].lengths)


def budgets_of(rungs: str) -> dict[str, float]:
    """The thinking budgets in an option `TIER=TOKENS,...`."""
    found: dict[str, float] = {}
    for part in rungs.split(","):
        tier, equals, tokens = part.strip().rpartition("=")
        if not equals or not tier or tier in found or not tokens.isdecimal():
            fail(f"--rungs {rungs}: name each tier once with its thinking tokens, as in direct=0,short=1024")
        found[tier] = float(tokens)
    return found


def _refuse_harm(head: Head, ladders: Sequence[Ladder]) -> None:
    """Fail if the head would do harm in front of a model that it never saw, by replaying those it knows."""
    from gateway.simulation.price_sweep import faults, sweep_prices

    found = [fault for each in ladders for fault in faults(sweep_prices(head, each), plain=each.plain)]
    if found:
        fail(
            "nothing was written, because for a model that it never saw the head does harm:\n"
            + "\n".join(found)
        )


@commands.command("calibrate")
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
    rungs: Annotated[
        str | None,
        typer.Option(
            metavar="TIER=TOKENS,...",
            help="The thinking budgets of all tiers, 0 for none, if DATA does not state them. With them, few"
            " outcomes stay near the prior, and other budgets are interpolated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the folds.")] = 0,
    place: EncoderPlace = None,
    key: EncoderKey = None,
) -> None:
    """Teach a head the tiers of one more model from a few hundred outcomes."""
    need_extra()
    from router_model.training import train as training
    from router_model.training.calibrate import calibrate

    head = head_of(head_name, source_of(place, None, "mean", key))
    try:
        table = read_table(data, names_of(tiers), partial=tiers is None)
        budgets = budgets_of(rungs) if rungs else table.lengths
        table = replace(table, name=model_set or table.name, lengths=budgets)
        with err.status("calibrating"):
            saved = training.save(calibrate(head, table, seed), out_dir)
    except (OutcomeError, EncoderError, ArtifactError, OSError) as error:
        fail(error)
    metrics = saved.manifest["metrics"][table.name]
    err.print(
        f"{out_dir}: {saved.version} knows {table.name} ({', '.join(table.tiers)}) from {len(table)} rows:"
        f" deviance {metrics['deviance']} on prompts left out,"
        f" {metrics['deviance_of_constant']} of constants;"
        f" {metrics['gain_believed']:.0%} of the predicted differences believed",
        soft_wrap=True,
        highlight=False,
    )
    _print_fallback(table.name, metrics["fit"])


_FALLBACKS = {
    "constants": "all prompts get the same estimates, because nothing about them could be learnt",
    "length": "only the length of a prompt decides, because no more could be learnt",
    "ridge": "a ridge on latents and counts decides, because it is as good as the full head",
}


def _print_fallback(name: str, fit: str) -> None:
    """Say so where something simpler than the head was as good on prompts left out."""
    if fit in _FALLBACKS:
        err.print(f"{name}: {_FALLBACKS[fit]}", style="yellow", soft_wrap=True, highlight=False)


def head_of(name: str, source: Source | None, hint: str = "") -> Any:
    """Load a head by name or directory."""
    from router_model.head import load_named

    try:
        return load_named(name, source)
    except (ArtifactError, OSError) as error:
        fail(f"{error}{hint}")
