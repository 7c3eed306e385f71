"""The results of simulations as a table, as plots, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gateway.simulation.experiment import WINDOW, Result, World, trailing
from gateway.simulation.traffic import DURATION, RATE

OURS = "thinkmeter"


def jsonified(results: Sequence[Result]) -> str:
    """One JSON object: scenario → controller → score."""
    return json.dumps(
        {r.scenario.name: {name: vars(score) for name, score in r.scores.items()} for r in results}, indent=1
    )


def markdown(world: World, results: Sequence[Result]) -> str:
    """A Markdown table of all runs."""
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


def write_report(world: World, results: Sequence[Result], folder: Path) -> None:
    """Write the table of all runs and a plot of each into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(markdown(world, results) + "\n")
    for result in results:
        plot(world, result, folder / f"{result.scenario.name}.svg")


def plot(world: World, result: Result, path: Path) -> None:
    """Price, use and tiers over time, as an SVG file. Needs matplotlib (the `train` extra)."""
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
    """Share of each tier, and of no answer, among the requests of the last 30 s, [T + 1, moments]."""
    granted = result.runs[OURS].granted
    kinds = [granted == tier for tier in range(result.trace.tokens.shape[1])] + [granted < 0]
    first, last = (np.searchsorted(result.trace.at, seconds - back) for back in (30.0, 0.0))
    counts = np.array([np.r_[0, np.cumsum(kind)][last] - np.r_[0, np.cumsum(kind)][first] for kind in kinds])
    return counts / np.maximum(counts.sum(axis=0), 1)
