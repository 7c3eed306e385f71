"""Summaries of comparisons, with intervals, as JSON values and as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from router_model.arrays import Floats
from router_model.evaluation import cost_quality, metrics
from router_model.evaluation.chance import Chance, by_chance
from router_model.evaluation.experiment import Cell, Comparison
from router_model.evaluation.metrics import BUDGETS
from router_model.training.outcomes import OutcomeTable

Summary = dict[str, Any]
Interval = list[float | None]

_GRID = 41  # budgets at which curves are stored
_ECE_DRAWS = 100
PERMUTATIONS = 50
"""Permutations behind the gain by chance of each method; as many as `draws` for the shipped one."""


def summarise(  # noqa: PLR0917
    comparison: Comparison, title: str, unit: str, shipped: str, draws: int, seed: int = 0
) -> Summary:
    """All figures of one comparison as JSON values; NaN becomes null.

    `measures` are [estimate, lower, upper] (`metrics.measures`), gains less what the same decisions gain when
    they are permuted over the prompts (`chance`). `ahead`: by how much `shipped` leads. `p_value`: that the
    AIQ gain is above zero, the larger one of the permutations' and the bootstrap's.
    """
    ground, best = comparison.tiers[0].curve(), comparison.oracle[0].curve()
    sweeps = {name: [cell.sweep for cell in cells] for name, cells in comparison.cells.items()}
    resampled = metrics.bootstrap(
        sweeps, comparison.tiers, comparison.oracle, len(comparison.table), draws, seed
    )
    chances = {
        name: by_chance(
            comparison.table, cells, comparison.tiers, draws if name == shipped else PERMUTATIONS, seed
        )
        for name, cells in comparison.cells.items()
    }
    net = {name: _net(resampled[name], chances[name]) for name in sweeps}
    budgets = np.linspace(*cost_quality.ends(ground), _GRID)
    return {
        "title": title,
        "table": comparison.table.name,
        "setting": comparison.setting,
        "prompts": len({int(row) for tiers in comparison.tiers for row in tiers.rows}),
        "seeds": len(comparison.tiers),
        "oracle": comparison.oracle_kind,
        "unit": unit,
        "tiers": _tiers(comparison),
        "budgets": budgets.tolist(),
        "mix_curve": [cost_quality.mix_at(ground, budget) for budget in budgets],
        "oracle_curve": [cost_quality.at_budget(best, budget).accuracy for budget in budgets],
        "mix": {
            name: cost_quality.mix_at(ground, cost_quality.budget_of(ground, share))
            for name, share in BUDGETS.items()
        },
        "methods": {
            name: {
                "measures": {key: json_interval(values) for key, values in net[name].items()},
                "ahead": {
                    key: json_interval(net[shipped][key] - net[name][key])
                    for key in resampled[name]
                    if key.startswith("gain") or key == "aiq_gain"
                },
                **_chance(resampled[name], net[name], chances[name]),
                "curve": _curve(cells, budgets),
                "seconds": round(float(np.mean([cell.seconds for cell in cells])), 2),
                **_calibration(comparison.table, cells, seed),
            }
            for name, cells in comparison.cells.items()
        },
    }  # fmt: skip


def _net(figures: Mapping[str, Floats], found: Chance | None) -> Mapping[str, Floats]:
    """The figures of `metrics.bootstrap`, with gains less those by chance."""
    if found is None:
        return figures
    net = dict(figures)
    for key in found.measured:
        here, drawn = found.bias(key)
        net[key] = figures[key] - np.concatenate([[here], np.full(len(figures[key]) - 1, drawn)])
    return net


def _chance(figures: Mapping[str, Floats], net: Mapping[str, Floats], found: Chance | None) -> dict[str, Any]:
    """The AIQ gain by chance, and the p-value that the method's is above it and above zero."""
    if found is None:
        return {}
    key = "aiq_gain"
    sure = max(found.p_value(key, float(figures[key][0])), metrics.chance(net[key]))
    return {"by_chance": round(found.bias(key)[0], 5), "p_value": round(sure, 5)}


def json_interval(values: Floats) -> Interval:
    """[estimate, lower, upper] as JSON values."""
    return [None if math.isnan(value) else round(value, 5) for value in metrics.interval(values)]


def _tiers(comparison: Comparison) -> list[dict[str, Any]]:
    rows = sorted({int(row) for tiers in comparison.tiers for row in tiers.rows})
    part = comparison.table.take(rows)
    means = zip(part.tiers, part.tokens.mean(axis=0), part.correct.mean(axis=0), strict=True)
    found = [{"name": name, "tokens": float(cost), "accuracy": float(right)} for name, cost, right in means]
    return sorted(found, key=lambda tier: tier["tokens"])


def _curve(cells: Sequence[Cell], budgets: Floats) -> list[float]:
    """Accuracy at the budgets, averaged over seeds."""
    curves = [cell.sweep.curve() for cell in cells]
    means = [
        [cost_quality.at_budget(curve, budget).accuracy for curve in curves] for budget in budgets.tolist()
    ]
    return [round(float(np.mean(accuracies)), 5) for accuracies in means]


def _calibration(table: OutcomeTable, cells: Sequence[Cell], seed: int) -> dict[str, Any]:
    """ECE per tier after and, if known, before calibration, and the first seed's reliability diagram."""
    if cells[0].estimates is None:
        return {}
    random = np.random.default_rng(seed)
    figures: dict[str, Any] = {"ece": {}, "reliability": {}}
    for column, tier in enumerate(table.tiers):
        figures["ece"][tier] = {"after": json_interval(_errors(table, cells, column, random, raw=False))}
        if cells[0].uncalibrated is not None:
            figures["ece"][tier]["before"] = json_interval(_errors(table, cells, column, random, raw=True))
        predicted = cells[0].estimates.correct[:, column]
        parts = np.array_split(predicted.argsort(kind="stable"), 10)
        truth = table.correct[cells[0].sweep.rows, column]
        figures["reliability"][tier] = [
            [round(float(side[part].mean()), 4) for part in parts] for side in (predicted, truth)
        ]
    return figures


def _errors(
    table: OutcomeTable, cells: Sequence[Cell], tier: int, random: np.random.Generator, *, raw: bool
) -> Floats:
    """Calibration error of each resample, entry 0 without resampling; mean over seeds."""
    means = []
    for draw in range(1 + _ECE_DRAWS):
        errors = []
        for cell in cells:
            estimates = cell.uncalibrated if raw else cell.estimates
            assert estimates is not None  # noqa: S101  (checked by the caller)
            count = len(cell.sweep.rows)
            pick = random.integers(0, count, count) if draw else np.arange(count)
            truth = table.correct[cell.sweep.rows, tier]
            errors.append(metrics.calibration_error(estimates.correct[pick, tier], truth[pick]))
        means.append(np.mean(errors))
    return np.array(means)


def as_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def table(summary: Summary, shipped: str) -> str:
    """Markdown: one row per method, with points over the mix at the five budgets and the other figures."""
    named = [f"{name} ({extra:.0%})" for name, extra in BUDGETS.items()]
    mix = [f"{100 * summary['mix'][name]:.1f} %" for name in BUDGETS]
    rows = [["*best fixed mix, right answers*", *mix, "", "", ""]]
    for name, method in summary["methods"].items():
        measures = method["measures"]
        cells = [in_points(measures[f"gain_{budget}"]) for budget in BUDGETS]
        cells += [
            plain(measures["saved_middle"], 100, " %", 0), in_points(measures["aiq_gain"], 2),
            in_points([method.get("by_chance"), None, None], 2),
        ]  # fmt: skip
        rows.append([f"**{name}**" if name == shipped else name, *cells])
    return as_markdown(["method", *named, "tokens saved", "AIQ gain", "by chance"], rows)


def calibration(summaries: Sequence[Summary], methods: Sequence[str]) -> str:
    """Markdown: expected calibration error by tier in points, before and after calibration."""
    rows = []
    for summary in summaries:
        cells = []
        for name in methods:
            errors = summary["methods"].get(name, {}).get("ece", {})
            cells.append(", ".join(_error(tier, error) for tier, error in errors.items()) or "–")
        rows.append([summary["title"], *cells])
    return as_markdown(["setting", *methods], rows)


def _error(tier: str, error: Mapping[str, Interval]) -> str:
    after = plain(error["after"], 100, "", 1)
    return (
        f"{tier} {plain(error['before'], 100, '', 1)} → {after}" if "before" in error else f"{tier} {after}"
    )


def in_points(bounds: Sequence[float | None], digits: int = 1) -> str:
    """`+6.9 (5.1 to 8.8)`, in points; bold if the whole interval is above zero."""
    value, low, high = bounds
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{100 * value:+.{digits}f}"
    text = f"{100 * value:+.{digits}f} ({100 * low:.{digits}f} to {100 * high:.{digits}f})"
    return f"**{text}**" if low > 0 else text


def plain(bounds: Interval, scale: float, unit: str, digits: int) -> str:
    value, low, high = bounds
    if value is None:
        return "–"
    text = f"{scale * value:.{digits}f}{unit}"
    return (
        text
        if low is None or high is None
        else f"{text} ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
    )
