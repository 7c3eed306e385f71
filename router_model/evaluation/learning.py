"""How much evidence `calibrate` needs: heads calibrated on a few prompts, measured on all the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from router_model.evaluation import cost_quality
from router_model.evaluation.experiment import Cell, Comparison, assemble
from router_model.evaluation.methods import Estimates
from router_model.evaluation.oracle import outcomes_of
from router_model.head import Head
from router_model.training.calibrate import calibrate
from router_model.training.outcomes import OutcomeTable

SIZES = (25, 50, 100, 200, 400, 800)
SHARE = 0.75
"""At most this share of a table is calibrated on, so that enough prompts are left to measure on."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a head was calibrated on."""

    prompts: int
    samples: int
    """Generations per prompt and tier."""


def curve_points(table: OutcomeTable) -> list[Sample]:
    """The sizes that a table allows: all numbers of prompts, with one sample and, at most, all of them."""
    most = int(table.samples.min())
    counts = sorted({1, *(many for many in (2, 4) if many <= most)})
    sizes = [size for size in SIZES if size <= SHARE * len(table)]
    return [Sample(size, count) for count in counts for size in sizes]


def thinned(table: OutcomeTable, samples: int, random: np.random.Generator) -> OutcomeTable:
    """The table as if each cell had only so many of its samples, drawn without replacement.

    Mean tokens stay those of all samples, because a table has no tokens of single ones.
    """
    right = np.rint(table.correct * table.samples).astype(np.int64)
    kept = np.minimum(table.samples, samples)
    drawn = random.hypergeometric(right, table.samples - right, kept)
    return replace(table, correct=drawn / kept, samples=kept)


def calibrated(
    head: Head, table: OutcomeTable, evidence: Sample, seeds: Sequence[int], tick: Callable[[str], object]
) -> Comparison:
    """The head, calibrated on other random prompts for each seed and measured on the rest of the table."""
    cells, tested = [], []
    for seed in seeds:
        random = np.random.default_rng(seed)
        known = np.zeros(len(table), np.bool_)
        known[random.permutation(len(table))[: evidence.prompts]] = True
        tuned = calibrate(head, thinned(table.take(known), evidence.samples, random), seed)
        rest = table.take(~known)
        estimates = Estimates(*tuned.sets[table.name].outcomes(*tuned.see(rest.prompts)))
        truth = outcomes_of(rest)
        decisions = cost_quality.decide(estimates, truth, np.flatnonzero(~known))
        cells.append(Cell(decisions.scored(truth), estimates, decisions=decisions))
        tested.append(~known)
        tick(f"{table.name}: {evidence.prompts} × {evidence.samples}")
    name = f"{evidence.prompts} prompts × {evidence.samples}"
    return assemble(table, "calibrated on other prompts", {name: cells}, tested)
