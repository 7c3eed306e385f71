"""The command `simulate`: the price controller and its rivals over made-up traffic."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from router_model.training.outcomes import OutcomeError, read_table

commands = typer.Typer()

EXAMPLE = Path(__file__).parents[2] / "examples/tiny_reasoner/measured/outcomes.jsonl.gz"

TableOption = Annotated[
    Path | None,
    typer.Option(
        help="Outcome table (.jsonl, .jsonl.gz, .parquet); default the tiny reasoner's in a checkout."
    ),
]
TiersOption = Annotated[
    str | None, typer.Option(help="Tiers to use, cheapest first, with commas between; default all.")
]
ShareOption = Annotated[
    float, typer.Option(min=0.05, max=2.0, help="The cap, as a share of what traffic would use at price 0.")
]
ReserveOption = Annotated[str, typer.Option(help="What is reserved for a request: strict (its cap) or p95.")]
ScenarioOption = Annotated[list[str] | None, typer.Option("--scenario", help="Only these; may be repeated.")]


@commands.command("simulate")
def simulate_command(
    table: TableOption = None,
    tiers: TiersOption = None,
    *,
    share: ShareOption = 0.6,
    reserve: ReserveOption = "strict",
    scenario: ScenarioOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Runs with the same seed are the same.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Write a report and plots into this folder.")
    ] = None,
) -> None:
    """Run the price controller and its rivals over made-up traffic with measured outcomes."""
    if not find_spec("sklearn"):
        typer.echo("the simulator fits a head, which needs: pip install '.[train]' in the checkout", err=True)
        raise typer.Exit(2)
    from gateway.simulation import experiment, report, traffic
    from router_model.evaluation.baselines import Regression

    known = {candidate.name: candidate for candidate in traffic.SCENARIOS}
    if unknown := set(scenario or ()) - known.keys():
        raise typer.BadParameter(f"no scenario {min(unknown)!r}; there are {', '.join(known)}")
    if reserve not in ("strict", "p95"):
        raise typer.BadParameter(f"{reserve!r} is neither strict nor p95")
    try:
        outcomes = read_table(table or EXAMPLE, tiers.split(",") if tiers else None)
    except OutcomeError as error:
        hint = "" if table else " (name one with --table)"
        typer.echo(f"{error}{hint}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"fitting a head to {len(outcomes)} prompts", err=True)
    estimates = experiment.cross_fitted(outcomes, Regression(), seed)
    world = experiment.world(
        outcomes, estimates, traffic.clamps(outcomes), share=share, strict=reserve == "strict"
    )
    results = []
    for name, candidate in known.items():
        if not scenario or name in scenario:
            typer.echo(f"running {name}", err=True)
            results.append(experiment.simulate(world, candidate, seed))
    typer.echo(report.jsonified(results) if as_json else report.markdown(world, results))
    if out_dir:
        report.write_report(world, results, out_dir)
        typer.echo(f"wrote {out_dir}", err=True)
