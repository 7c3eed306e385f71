"""What decisions are measured against: mixes of more rungs, and oracles that know what a method knows."""

from __future__ import annotations

from dataclasses import replace

from router_model.evaluation import cost_quality
from router_model.evaluation.cost_quality import Sweep
from router_model.evaluation.experiment import Comparison
from router_model.evaluation.methods import Estimates
from router_model.evaluation.oracle import oracle


def against(comparison: Comparison, rungs: Estimates) -> Comparison:
    """The same decisions against the mixes of more fixed rungs than the methods chose from.

    rungs: outcomes of all rungs for every prompt of the table, [N, K].
    """
    tiers = [
        cost_quality.fixed(rungs.correct[own.rows], rungs.tokens[own.rows], own.rows)
        for own in comparison.tiers
    ]
    return replace(comparison, tiers=tiers)


def informed(comparison: Comparison, method: str) -> Comparison:
    """With oracles that also know a method's estimates, if oracles are split-sample; else as it was."""
    cells = comparison.cells[method]
    if comparison.oracle_kind != "split-sample" or any(cell.estimates is None for cell in cells):
        return comparison
    oracles, kind = [], comparison.oracle_kind
    for seed, cell in enumerate(cells):
        best, kind = oracle(comparison.table.take(cell.sweep.rows), seed, draws=8, prior=cell.estimates)
        oracles.append(Sweep(cell.sweep.rows, best.tokens, best.correct))
    return replace(comparison, oracle=oracles, oracle_kind=kind)
