"""Learns the tier curves of one more model from a few hundred outcomes, with the trunk frozen.

Item-response theory does the same when it estimates new items for people of known ability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from router_model.arrays import Floats
from router_model.encoders.ngrams import DENSE
from router_model.head import Head
from router_model.prompts import fingerprints
from router_model.training.outcomes import FOLDS, OutcomeError, OutcomeTable, folds
from router_model.training.smoothing import choose_smoothing
from router_model.training.tier_curves import (
    FEWEST,
    correct_by,
    corrected,
    cross_regress,
    metrics,
    regress,
    rising,
    uncorrected,
)


def inputs_of(head: Head, table: OutcomeTable) -> Floats:
    """The inputs of the curves for each prompt, [N, H + R + DENSE]."""
    return head.see(table.prompts).astype(float)


def calibrate(
    head: Head, table: OutcomeTable, seed: int = 0, lengths: Mapping[str, float] | None = None
) -> Head:
    """A head that also knows the tiers of the model that the table is named after. The trunk stays the same.

    lengths: reasoning tokens of the tiers, rising, if other tiers of this model are to be interpolated; by
    default the thinking budgets that the table states.

    Raises: OutcomeError, below 20 prompts.
    """
    if len(table) < FEWEST:
        raise OutcomeError(f"{table.name}: {len(table)} prompts are too few to calibrate on; give {FEWEST}")
    seen = inputs_of(head, table)
    latents = slice(len(head.trunk.hidden_bias), seen.shape[1] - DENSE)
    fold = folds(table, FOLDS, seed)
    fitted = cross_regress(seen[:, latents], table, fold)
    smoothing = choose_smoothing(fitted, table)
    raw = fitted @ smoothing.matrix
    narrow = regress(seen[:, latents], table) @ smoothing.matrix
    weights = np.zeros((seen.shape[1] + 1, narrow.shape[1]))
    weights[latents] = narrow[:-1]
    weights[-1] = narrow[-1]
    correction = correct_by(raw, table)
    curves = replace(
        corrected(uncorrected(table, weights, lengths or rising(table.lengths)), correction), bound=True
    )
    manifest = dict(head.manifest)
    for part, entry in (
        ("data", {"sha256": table.digest, "prompts": len(table)}),
        ("metrics", metrics(table, raw, correction) | {"smoothing": smoothing.penalties}),
    ):
        manifest[part] = {**manifest.get(part, {}), table.name: entry}
    return replace(
        head,
        sets={**head.sets, table.name: curves},
        trained=np.union1d(head.trained, fingerprints(table.prompts)),
        manifest=manifest,
    )
