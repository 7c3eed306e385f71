"""What a method gains by chance: its decisions, dealt out to the prompts at random.

The hull of a noisy curve lies above the curve, so even decisions that have nothing to do with the prompts
seem to gain on a small table. Permuting the decisions over the prompts keeps how often each tier is chosen
at each price, and removes what they know about the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from router_model.arrays import Floats
from router_model.evaluation.cost_quality import Sweep
from router_model.evaluation.experiment import Cell
from router_model.evaluation.methods import Estimates
from router_model.evaluation.metrics import Ground, gains
from router_model.training.outcomes import OutcomeTable


class Chance(NamedTuple):
    """Gains of permuted decisions by name of the figure (`metrics.gains`), [permutations] each."""

    measured: dict[str, Floats]
    """On the prompts as they are."""
    resampled: dict[str, Floats]
    """On resampled prompts: what chance adds to a bootstrap draw."""

    def bias(self, key: str) -> tuple[float, float]:
        """Mean gain by chance, as measured and in resamples; never negative.

        A method is not credited for decisions that lose when they are permuted.
        """
        return max(float(self.measured[key].mean()), 0.0), max(float(self.resampled[key].mean()), 0.0)

    def p_value(self, key: str, gain: float) -> float:
        """The share of permutations that gain at least as much (Phipson and Smyth, 2010)."""
        found = self.measured[key]
        return float((1 + (found >= gain).sum()) / (1 + len(found)))


def by_chance(
    table: OutcomeTable, cells: Sequence[Cell], tiers: Sequence[Sweep], permutations: int, seed: int
) -> Chance | None:
    """Gains of the cells' decisions, permuted over the prompts; mean over the cells. None without decisions.

    cells, tiers: one per seed. Where seeds test the same prompts, their decisions are permuted alike, since
    the luck of a prompt's outcome is the same in all of them.
    """
    if any(cell.decisions is None for cell in cells):
        return None
    random = np.random.default_rng(seed)
    decided = [
        (cell.decisions, Estimates(table.correct[cell.sweep.rows], table.tokens[cell.sweep.rows]))
        for cell in cells
        if cell.decisions
    ]
    sides: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    prompts = len(table)
    for _ in range(permutations):
        keys = random.random(prompts)
        weights = random.multinomial(prompts, np.full(prompts, 1 / prompts)).astype(float)
        dealt = [decisions.permuted(keys).scored(truth) for decisions, truth in decided]
        for side, weighted in zip(sides, (None, weights), strict=True):
            pairs = zip(dealt, tiers, strict=True)
            rows = [gains(own.curve(weighted), Ground.of(fixed.curve(weighted))) for own, fixed in pairs]
            for key in rows[0]:
                side.setdefault(key, []).append(float(np.mean([row[key] for row in rows])))
    measured, resampled = ({key: np.array(values) for key, values in side.items()} for side in sides)
    return Chance(measured, resampled)
