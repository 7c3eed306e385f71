"""The best that any allocation of tokens could do on a table."""

from __future__ import annotations

import numpy as np

from router_model.evaluation import cost_quality
from router_model.evaluation.cost_quality import Sweep
from router_model.evaluation.methods import Estimates
from router_model.training.outcomes import OutcomeTable


def outcomes_of(table: OutcomeTable) -> Estimates:
    """What really happened, as estimates."""
    return Estimates(table.correct, table.tokens)


def oracle(table: OutcomeTable, seed: int = 0, draws: int = 16) -> tuple[Sweep, str]:
    """The best that any allocation could do, and its kind.

    `split-sample` if every cell has at least two samples: tiers are chosen on all samples but one and scored
    on that one, which is drawn for each cell. `clairvoyant` otherwise: tiers are chosen and scored on the
    same sample, so luck counts as foresight and no router can reach the figure.
    """
    rows = np.arange(len(table))
    truth = outcomes_of(table)
    prices = cost_quality.prices(*truth, count=128)
    if table.samples.min() < 2:
        return cost_quality.sweep(truth, truth, rows, prices), "clairvoyant"
    random = np.random.default_rng(seed)
    right, count = np.rint(table.correct * table.samples), table.samples
    sweeps = []
    for _ in range(draws):
        scored = (random.random(right.shape) * count < right).astype(float)
        known = (right - scored) / (count - 1)
        sweeps.append(
            cost_quality.sweep(Estimates(known, table.tokens), Estimates(scored, table.tokens), rows, prices)
        )
    tokens = np.mean([sweep.tokens for sweep in sweeps], axis=0)
    return Sweep(rows, tokens, np.mean([sweep.correct for sweep in sweeps], axis=0)), "split-sample"
