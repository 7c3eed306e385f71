"""Measures a head that was trained before, on prompts that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router_model.evaluation import cost_quality
from router_model.evaluation.experiment import Cell, Trial, assemble, parts
from router_model.evaluation.methods import Estimates
from router_model.evaluation.oracle import oracle, outcomes_of
from router_model.head import Head
from router_model.training.calibrate import calibrate
from router_model.training.outcomes import OutcomeError, OutcomeTable


def score(estimates: Estimates, table: OutcomeTable) -> Cell:
    """A head that was fitted elsewhere, on all prompts of a table."""
    rows = np.arange(len(table))
    return Cell(cost_quality.sweep(estimates, outcomes_of(table), rows), estimates)


def scored(table: OutcomeTable, setting: str, name: str, cells: Sequence[Cell]) -> Trial:
    """A trial of one method from cells that each hold all prompts of the table."""
    return assemble(table, setting, {name: cells}, [np.ones(len(table), np.bool_)] * len(cells))


def points(
    cells: Sequence[Cell], table: OutcomeTable, extra: Sequence[float] = (0.25, 0.5, 0.75)
) -> list[dict[str, float]]:
    """Tokens and accuracy at shares of the extra budget, with the best fixed mix and the oracle; means
    over cells.

    All prompts of the table must have been scored in every cell.
    """
    tiers = cost_quality.fixed(table.correct, table.tokens, np.arange(len(table))).curve()
    best = oracle(table)[0].curve()
    found = []
    for share in extra:
        budget = cost_quality.budget_of(tiers, share)
        reached = [cost_quality.at_budget(cell.sweep.curve(), budget) for cell in cells]
        found.append(
            {
                "extra_budget": share,
                "tokens": float(np.mean([point.tokens for point in reached])),
                "accuracy": float(np.mean([point.accuracy for point in reached])),
                "mix": cost_quality.mix_at(tiers, budget),
                "oracle": cost_quality.at_budget(best, budget).accuracy,
            }
        )
    return found


def apply(head: Head, table: OutcomeTable, seed: int) -> tuple[OutcomeTable, Estimates, str]:
    """A trained head's estimates for the prompts that it was not trained on; returns them and how they
    were made.

    A table that the head was trained on entirely is measured as it is, and `how` says so. Tiers are
    matched by name: the set called like the table, else the first set that has them all. Where no set has,
    the tiers' curves are calibrated with the trunk frozen on four fifths of the table and measured on the
    other, five times over. Raises OutcomeError.
    """
    fresh = ~head.trained_on(table.prompts)
    kept, note = table.take(fresh), ""
    if not len(kept):
        kept, note = table, "; THE HEAD WAS TRAINED ON ALL OF THESE PROMPTS, so the figures are too good"
    elif len(kept) < len(table):
        note = f"; without {len(table) - len(kept):,} prompts that the head was trained on"
    named = head.sets.get(table.name)
    for known in (*([named] if named else []), *head.sets.values()):
        if set(table.tiers) <= set(known.tiers):
            columns = [known.tiers.index(tier) for tier in table.tiers]
            correct, tokens = known.outcomes(head.see(kept.prompts))
            return kept, Estimates(correct[:, columns], tokens[:, columns]), f"tiers of {known.name}{note}"
    estimates = Estimates(np.zeros_like(kept.correct), np.zeros_like(kept.tokens))
    tests = list(parts(kept, seed))
    if not tests:
        raise OutcomeError(
            f"{table.name}: {len(kept)} prompts are too few to calibrate on and to measure with"
        )
    for test in tests:
        tuned = calibrate(head, kept.take(~test), seed)
        seen = tuned.see(kept.take(test).prompts)
        estimates.correct[test], estimates.tokens[test] = tuned.sets[kept.name].outcomes(seen)
    how = f"new tiers, calibrated on four fifths and measured on the other, five times{note}"
    return kept, estimates, how
