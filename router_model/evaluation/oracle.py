"""The best that any allocation of tokens could do on a table."""

from __future__ import annotations

import numpy as np

from router_model.evaluation import cost_quality
from router_model.evaluation.cost_quality import Sweep
from router_model.evaluation.methods import Estimates
from router_model.training.outcomes import OutcomeTable

WEIGHT = 2.0
"""Samples that a method's estimate counts as when it informs the oracle."""


def outcomes_of(table: OutcomeTable) -> Estimates:
    """What really happened, as estimates."""
    return Estimates(table.correct, table.tokens)


def oracle(
    table: OutcomeTable, seed: int = 0, draws: int = 16, prior: Estimates | None = None
) -> tuple[Sweep, str]:
    """The best that any allocation could do, and its kind.

    `split-sample` if every cell has at least two samples: tiers are chosen on all samples but one and scored
    on that one, which is drawn for each cell. `clairvoyant` otherwise: tiers are chosen and scored on the
    same sample, so luck counts as foresight and no router can reach the figure.
    prior: what a method expects of each prompt, [N, T]. A few samples are a poor guide to a prompt, and an
    oracle that knows nothing else loses to a good method. With a prior it knows both, and the kind is
    `informed`: the prior's P(right) counts as `WEIGHT` samples.
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
        if prior is not None:
            known = (right - scored + WEIGHT * prior.correct) / (count - 1 + WEIGHT)
        sweeps.append(
            cost_quality.sweep(Estimates(known, table.tokens), Estimates(scored, table.tokens), rows, prices)
        )
    tokens = np.mean([sweep.tokens for sweep in sweeps], axis=0)
    best = Sweep(rows, tokens, np.mean([sweep.correct for sweep in sweeps], axis=0))
    return best, "split-sample" if prior is None else "informed"
