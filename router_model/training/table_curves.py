"""Turns a chosen fit into the curves of a table: smoothed over its thinking budgets, and corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from router_model.arrays import Floats, Ints, Singles
from router_model.head_parts import Curves
from router_model.training import tier_curves
from router_model.training.choice import CONSTANTS, FULL, SMALL, Fit
from router_model.training.ibpo import FirstStage
from router_model.training.outcomes import OutcomeTable
from router_model.training.smoothing import Smoothing, choose_smoothing
from router_model.training.tier_curves import Correction


class TableCurves(NamedTuple):
    """The curves of one table with N prompts and T tiers, and what came with them."""

    table: OutcomeTable
    plain: Curves
    """Before correction."""
    curves: Curves
    raw: Floats
    """Cross-fitted, smoothed logits and log tokens, before correction, [N, 2T]."""
    correction: Correction
    smoothing: Smoothing
    metrics: dict[str, Any]
    """The entry of a manifest."""
    improvable: bool
    """Whether the second stage applies: not to a simple fit, and not to a small table, where a change of
    decisions is mostly noise."""

    @property
    def corrected(self) -> Floats:
        """`raw` after correction."""
        return self.raw * self.correction.scale + self.correction.move

    def first_stage(
        self, latents: Floats, rows: slice, fold: Ints, inputs: Floats | Singles, without: Floats
    ) -> FirstStage:
        """What the second stage starts from.

        inputs: of the curves, [N, inputs]; `latents` are those in the columns `rows`. without: raw
        predictions for all prompts, fitted without each fold, [FOLDS, N, 2T].
        """
        return FirstStage(
            table=self.table,
            latents=latents,
            rows=rows,
            fold=fold,
            whole=(inputs @ self.curves.weights + self.curves.bias).astype(float),
            without=without @ self.smoothing.matrix * self.correction.scale + self.correction.move,
            curves=self.curves,
            smoothing=self.smoothing.matrix,
        )


def curves_of(fit: Fit, table: OutcomeTable, size: Floats, lengths: Mapping[str, float]) -> TableCurves:
    """Smooth the fit over the thinking budgets, and correct it by predictions for prompts left out.

    size: standardised log length of the prompts, [N]. lengths: thinking budgets by tier, rising.
    """
    smoothing = choose_smoothing(fit.raw, table)
    raw = fit.raw @ smoothing.matrix
    correction = tier_curves.correct_by(raw, table)
    plain = tier_curves.uncorrected(table, fit.weights @ smoothing.matrix, lengths)
    if fit.name != CONSTANTS:
        plain = replace(plain, by_length=tier_curves.by_length(table, size))
    metrics = tier_curves.metrics(table, raw, correction)
    return TableCurves(
        table=table,
        plain=plain,
        curves=tier_curves.corrected(plain, correction),
        raw=raw,
        correction=correction,
        smoothing=smoothing,
        metrics=metrics | {"fit": fit.name, "smoothing": smoothing.penalties},
        improvable=fit.name == FULL and len(table) >= SMALL,
    )
