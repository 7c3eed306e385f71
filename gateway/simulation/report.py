"""`thinkmeter simulate`: the gateway's own pacing over made-up traffic, as a table, as plots, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from gateway.simulation.experiment import WINDOW, Result, World, cross_fitted, simulate, trailing, world
from gateway.simulation.traffic import DURATION, RATE, SCENARIOS, clamps
from router_model.training.outcomes import OutcomeError, read

EXAMPLE = Path(__file__).parents[2] / "examples/tiny_reasoner/measured/outcomes.jsonl.gz"
OURS = "thinkmeter"

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
ReserveOption = Annotated[str, typer.Option(help="What is set aside for a request: strict (its cap) or p95.")]
ScenarioOption = Annotated[list[str] | None, typer.Option("--scenario", help="Only these; may be repeated.")]


def simulate_command(
    table: TableOption = None,
    tiers: TiersOption = None,
    *,
    share: ShareOption = 0.6,
    reserve: ReserveOption = "strict",
    scenario: ScenarioOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Runs with the same seed are the same.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write a report and plots into this folder.")] = None,
) -> None:
    """Run the price controller and its rivals over made-up traffic with measured outcomes."""
    if not find_spec("sklearn"):
        typer.echo("the simulator fits a head, which needs: pip install '.[train]' in the checkout", err=True)
        raise typer.Exit(2)
    from router_model.evaluation.baselines import Regression  # noqa: PLC0415 - only the train extra has what it needs

    chosen = [one for one in SCENARIOS if not scenario or one.name in scenario]
    unknown = set(scenario or ()) - {one.name for one in chosen}
    if unknown:
        raise typer.BadParameter(
            f"no scenario {min(unknown)!r}; there are {', '.join(s.name for s in SCENARIOS)}"
        )
    if reserve not in ("strict", "p95"):
        raise typer.BadParameter(f"{reserve!r} is neither strict nor p95")
    try:
        outcomes = read(table or EXAMPLE, tiers.split(",") if tiers else None)
    except OutcomeError as error:
        hint = "" if table else " (name one with --table)"
        typer.echo(f"{error}{hint}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"fitting a head to {len(outcomes)} prompts", err=True)
    estimates = cross_fitted(outcomes, Regression(), seed)
    made = world(outcomes, estimates, clamps(outcomes), share=share, strict=reserve == "strict")
    results = []
    for one in chosen:
        typer.echo(f"running {one.name}", err=True)
        results.append(simulate(made, one, seed))
    typer.echo(jsonified(results) if as_json else markdown(made, results))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(markdown(made, results) + "\n")
        for result in results:
            plot(made, result, out / f"{result.scenario.name}.svg")
        typer.echo(f"wrote {out}", err=True)


def jsonified(results: Sequence[Result]) -> str:
    """One object: scenario, controller, score."""
    return json.dumps(
        {r.scenario.name: {name: vars(score) for name, score in r.scores.items()} for r in results}, indent=1
    )


def markdown(world: World, results: Sequence[Result]) -> str:
    """A table of all runs."""
    columns = (
        "scenario, controller, seconds over cap, use, accuracy, to hindsight, to relaxed, limiter, refused"
    )
    traffic = (
        f"{world.table.name}: {len(world.table)} prompts, tiers {', '.join(world.table.tiers)}; {RATE:g}"
        f" requests a second for {DURATION / 60:g} minutes; {world.cap:,.0f} tokens in any {WINDOW:g} s."
    )
    lines = [traffic, "", f"| {columns.replace(', ', ' | ')} |", "|---" * 9 + "|"]
    for result in results:
        for name, score in result.scores.items():
            points, relaxed = (
                100 * (score.accuracy - other) for other in (score.hindsight_accuracy, score.relaxed_accuracy)
            )
            lines.append(
                f"| {result.scenario.name} | {name} | {score.seconds_over_cap} | {score.utilisation:.1%}"
                f" | {score.accuracy:.1%} | {points:+.1f} | {relaxed:+.1f} | {score.limiter_share:.1%}"
                f" | {score.rejected_share:.1%} |"
            )
    return "\n".join(lines)


def plot(world: World, result: Result, path: Path) -> None:
    """Price, use and mix over time, as an SVG picture. Needs matplotlib (the `train` extra)."""
    import matplotlib as mpl  # noqa: PLC0415 - only the train extra has it
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.hashsalt": "thinkmeter", "font.size": 8, "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 6), layout="constrained")
        price, use, mix = figure.subplots(3, 1, sharex=True)
        seconds = np.arange(10.0, result.trace.duration + 1, 10.0)
        for name in (OURS, "fixed price, limiter", "hindsight price"):
            run = result.runs[name]
            at = np.maximum(np.searchsorted(result.trace.at, seconds) - 1, 0)
            price.plot(seconds, run.prices[at], label=name, linewidth=1)
            use.plot(seconds, trailing(run.ended, run.used, seconds) / world.cap, label=name, linewidth=1)
        held = result.runs[OURS].seconds
        use.plot(
            held[::10, 0], held[::10, 1:].sum(axis=1) / world.cap, ":", linewidth=1, label="with reserved"
        )
        use.axhline(1.0, color="black", linewidth=0.6)
        price.set(ylabel="price per 1,000 tokens", title=result.scenario.name, yscale="log")
        use.set(ylabel="share of the cap", ylim=(0, 1.1))
        mix.stackplot(seconds, _mix(result, seconds), labels=[*world.table.tiers, "none"])
        mix.set(
            ylabel=f"answers by tier, {OURS}", xlabel="seconds", xlim=(0, result.trace.duration), ylim=(0, 1)
        )
        for axes in (price, use, mix):
            axes.legend(fontsize=6, loc="lower right", ncols=5)
        figure.savefig(path, metadata={"Date": None})


def _mix(result: Result, seconds: Any) -> Any:
    """Share of each tier, and of no answer, among the requests of the 30 s before each moment, [T + 1, n]."""
    granted = result.runs[OURS].granted
    kinds = [granted == tier for tier in range(result.trace.tokens.shape[1])] + [granted < 0]
    first, last = (np.searchsorted(result.trace.at, seconds - back) for back in (30.0, 0.0))
    counts = np.array([np.r_[0, np.cumsum(kind)][last] - np.r_[0, np.cumsum(kind)][first] for kind in kinds])
    return counts / np.maximum(counts.sum(axis=0), 1)


if __name__ == "__main__":
    typer.run(simulate_command)
