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
from router_model.training import home as homes
from router_model.training.choice import FULL, Fit, best_fit
from router_model.training.home import Home
from router_model.training.ibpo import SKIPPED, improve, linear_without
from router_model.training.outcomes import FOLDS, OutcomeError, OutcomeTable, check_enough, folds
from router_model.training.table_curves import curves_of
from router_model.training.tier_curves import cross_regress, regress, rising


def inputs_of(head: Head, table: OutcomeTable) -> Floats:
    """The inputs of the curves for each prompt, [N, H + R + DENSE]."""
    return head.see(table.prompts)[0].astype(float)


def calibrate(
    head: Head,
    table: OutcomeTable,
    seed: int = 0,
    lengths: Mapping[str, float] | None = None,
    home: Home | None = None,
) -> Head:
    """A head that also knows the tiers of the model that the table is named after. The trunk stays the same.

    lengths: reasoning tokens of the tiers, rising, if other tiers of this model are to be interpolated; by
    default the thinking budgets that the table states. home: what was expected of the model before; few
    outcomes stay near it. By default the prior says it, if the thinking budgets are known.

    Raises: OutcomeError, below 20 prompts, for a single tier, or for lengths that do not rise.
    """
    check_enough(table, "calibrate")
    lengths = lengths or rising(table.lengths)
    _check_lengths(table, lengths)
    home = home or homes.expected(head.prior, table, lengths)
    if home is not None:
        homes.check_home(home, table)
    seen = inputs_of(head, table)
    width = seen.shape[1]
    latents, counts = slice(len(head.trunk.hidden_bias), width - DENSE), slice(width - DENSE, width)
    fold = folds(table, FOLDS, seed)
    if len(np.unique(fold)) < FOLDS:  # prompts picked by their hash: nothing would be left out of a fit
        fold = np.arange(len(table)) % FOLDS
    narrow = regress(seen[:, latents], table)
    weights = np.zeros((width + 1, narrow.shape[1]))
    weights[latents], weights[-1] = narrow[:-1], narrow[-1]
    full = Fit(FULL, cross_regress(seen[:, latents], table, fold), weights)
    own = curves_of(best_fit(full, seen, latents, counts, table, fold), table, seen[:, -DENSE], lengths)
    curves, second = own.curves, SKIPPED
    if own.improvable:
        without = linear_without(seen[:, latents], table, fold)
        first = own.first_stage(seen[:, latents], latents, fold, seen, without)
        curves, second = improve(first, seed)
    entry = own.metrics | {"second_stage": second}
    if home is not None:
        strength = homes.strengths(own.corrected, table, home)
        curves = homes.towards(curves, home, len(table), strength)
        entry["prior"] = {"correct": strength[0], "tokens": strength[1]}
    manifest = dict(head.manifest)
    for part, value in (("data", {"sha256": table.digest, "prompts": len(table)}), ("metrics", entry)):
        manifest[part] = {**manifest.get(part, {}), table.name: value}
    return replace(
        head,
        sets={**head.sets, table.name: curves},
        trained=np.union1d(head.trained, fingerprints(table.prompts)),
        manifest=manifest,
    )


def _check_lengths(table: OutcomeTable, lengths: Mapping[str, float]) -> None:
    """Refuse lengths of unknown tiers, and lengths that do not rise. Raises: OutcomeError."""
    unknown = sorted(set(lengths) - set(table.tiers))
    if unknown:
        raise OutcomeError(f"{table.name}: a length for {unknown[0]}, which is not among its tiers")
    values = np.array(list(lengths.values()), float)
    if len(values) and (len(values) < 2 or not np.isfinite(values).all() or (np.diff(values) <= 0).any()):
        raise OutcomeError(f"{table.name}: the lengths of the tiers must rise: {dict(lengths)}")
