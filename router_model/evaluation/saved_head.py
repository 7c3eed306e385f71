"""Measures a head that was trained before, on prompts that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router_model.evaluation import cost_quality
from router_model.evaluation.experiment import Cell, Comparison, assemble, parts
from router_model.evaluation.methods import Estimates
from router_model.evaluation.oracle import oracle, outcomes_of
from router_model.head import Head
from router_model.training.calibrate import calibrate
from router_model.training.outcomes import OutcomeError, OutcomeTable


def score_estimates(estimates: Estimates, table: OutcomeTable) -> Cell:
    """Score a head's estimates for all prompts of a table."""
    rows = np.arange(len(table))
    truth = outcomes_of(table)
    decisions = cost_quality.decide(estimates, truth, rows)
    return Cell(decisions.scored(truth), estimates, decisions=decisions)


def scored(table: OutcomeTable, setting: str, name: str, cells: Sequence[Cell]) -> Comparison:
    """The comparison of a single method, whose cells each hold all prompts of the table."""
    return assemble(table, setting, {name: cells}, [np.ones(len(table), np.bool_)] * len(cells))


def budget_points(
    cells: Sequence[Cell], table: OutcomeTable, extra: Sequence[float] = (0.25, 0.5, 0.75)
) -> list[dict[str, float]]:
    """Tokens and accuracy at shares of the extra budget, beside the best fixed mix and the oracle.

    Means over cells. Every cell must hold all prompts of the table.
    """
    tiers = cost_quality.fixed(table.correct, table.tokens, np.arange(len(table))).curve()
    best = oracle(table)[0].curve()
    shown = []
    for share in extra:
        budget = cost_quality.budget_of(tiers, share)
        reached = [cost_quality.at_budget(cell.sweep.curve(), budget) for cell in cells]
        shown.append(
            {
                "extra_budget": share,
                "tokens": float(np.mean([point.tokens for point in reached])),
                "accuracy": float(np.mean([point.accuracy for point in reached])),
                "mix": cost_quality.mix_at(tiers, budget),
                "oracle": cost_quality.at_budget(best, budget).accuracy,
            }
        )
    return shown


def estimate_unseen(head: Head, table: OutcomeTable, seed: int) -> tuple[OutcomeTable, Estimates, str]:
    """The prompts that a head was not trained on, its estimates for them, and how these were made.

    A table whose prompts were all trained on is measured as a whole, and the description says so. Tiers are
    matched by name: in the set of the table's name, else in the first set that has them all. If none has, the
    tiers' curves are calibrated on four fifths of the table and measured on the other fifth, five times.

    Raises: OutcomeError.
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
            correct, tokens = known.outcomes(*head.see(kept.prompts))
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
        estimates.correct[test], estimates.tokens[test] = tuned.sets[kept.name].outcomes(*seen)
    how = f"new tiers, calibrated on four fifths and measured on the other, five times{note}"
    return kept, estimates, how
