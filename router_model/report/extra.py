"""Measurements beside the comparison of methods: rivals that ask several times, and the learning curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from router_model.evaluation import learning, rivals, voting
from router_model.evaluation.experiment import Comparison
from router_model.evaluation.voting import Option
from router_model.head import Head
from router_model.report.settings import FURTHER, TINY, TOKENS, Setting
from router_model.report.summary import summarise
from router_model.training.outcomes import OutcomeTable

_SHOWN = 4  # options whose own figures are reported; more are only seen through their hull


def rivals_of(setting: Setting, table: OutcomeTable, tiny: Path | None) -> dict[str, list[Option]]:
    """The fixed ways to ask more than once that a table allows, by name."""
    ways: dict[str, list[Option]] = {}
    if setting.cascades:
        ways["direct, then think"] = rivals.measured(table, setting.cascades)
    if setting.drafts:
        never, always = rivals.two_drafts(table, *setting.drafts)
        ways |= {f"two drafts, {option.name}": [option] for option in (never, always)}
    if setting.key == TINY and tiny:
        ways |= _votes(tiny, setting.offered(table.take([name != FURTHER for name in table.datasets])))
    return ways


def _votes(path: Path, tested: OutcomeTable) -> dict[str, list[Option]]:
    """Votes on the answers, or upper bounds if the table holds only shares of right answers."""
    fixed, early = voting.ballots(path, tested.ids)
    bound = "" if fixed else " (upper bound)"
    if not fixed:
        fixed, early = voting.upper_bounds(tested)
    named = {"self-consistency": fixed, "adaptive consistency": [*fixed, *early]}
    return {f"{name}{bound}": options for name, options in named.items() if options}


def against_rivals(
    ways: Mapping[str, Sequence[Option]], whole: Comparison, shipped: str, draws: int
) -> dict[str, Any]:
    """Contests by rival, and the figures of single options."""
    routed = [cell.sweep for cell in whole.cells[shipped]]
    found = rivals.contests(ways, routed, whole.tiers, draws, seed=0)
    rows = np.unique(np.concatenate([tiers.rows for tiers in whole.tiers]))
    return {
        name: {
            "budgets": contest,
            "options": [
                {
                    "name": option.name,
                    "tokens": float(option.tokens[rows].mean()),
                    "accuracy": float(option.correct[rows].mean()),
                }
                for option in (ways[name] if len(ways[name]) <= _SHOWN else ())
            ],
        }
        for name, contest in found.items()
    }


def learning_curve(  # noqa: PLR0917
    head: Head,
    table: OutcomeTable,
    title: str,
    seeds: Sequence[int],
    draws: int,
    tick: Callable[[str], object],
) -> dict[str, Any]:
    """Gains of the head, calibrated on more and more of a table's prompts."""
    points = []
    for evidence in learning.curve_points(table):
        comparison = learning.calibrated(head, table, evidence, seeds, tick)
        (name,) = comparison.cells
        measures = summarise(comparison, title, TOKENS, name, draws)["methods"][name]["measures"]
        shown = {key: measures[key] for key in ("gain_lean", "gain_middle", "gain_ample", "aiq_gain")}
        points.append({**asdict(evidence), **shown})
    return {"title": title, "head": head.version, "prompts": len(table), "points": points}
