"""How training sees one table of many: its prompts, its latents, and the two ways to predict its outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model.arrays import Floats
from router_model.encoders.ngrams import DENSE
from router_model.head_parts import Trunk
from router_model.training import ibpo, tier_curves
from router_model.training.choice import FULL, Fit, best_fit
from router_model.training.ibpo import FirstStage
from router_model.training.network import Network
from router_model.training.outcomes import OutcomeTable
from router_model.training.table_curves import TableCurves
from router_model.training.trunk import Corpus, Latents

_BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)


class TableView(NamedTuple):
    """How the stages after the trunk see the N prompts of one table."""

    table: OutcomeTable
    rows: NDArray[np.int64]
    """Where the prompts are in the corpus, [N]."""
    columns: slice
    """The table's own latents among all."""
    outputs: NDArray[np.int64]
    """The table's logits and log tokens among the networks' outputs, [2T]."""
    latents: Floats
    """Cross-fitted, [N, R of the table]."""
    fold: NDArray[np.int64]
    """[N]"""
    linear: Floats
    """Cross-fitted logits and log tokens by regression, [N, 2T]."""
    deep: Floats
    """The same by the network, [N, 2T]."""
    deep_without: Floats
    """For all prompts by the network trained without each fold, [FOLDS, N, 2T]."""


def table_views(corpus: Corpus, latents: Latents, deep: Floats) -> Iterator[TableView]:
    """One view per table. deep: outputs of the network trained without each fold, [FOLDS, P, 2T of all]."""
    counts = [len(table.tiers) for table in corpus.tables]
    for index, (table, rows) in enumerate(zip(corpus.tables, corpus.rows, strict=True)):
        seen, fold = latents.inputs[rows, latents.columns[index]], corpus.fold[rows]
        own = np.arange(counts[index]) + sum(counts[:index])
        outputs = np.concatenate((own, own + sum(counts)))
        without = deep[:, rows][:, :, outputs]
        yield TableView(
            table=table,
            rows=rows,
            columns=latents.columns[index],
            outputs=outputs,
            latents=seen,
            fold=fold,
            linear=tier_curves.cross_regress(seen, table, fold),
            deep=without[fold, np.arange(len(rows))],
            deep_without=without,
        )


def choose_blend(view: TableView) -> float:
    """How much of the network to mix into the linear curves, by cross-fitted deviance.

    The smallest share within two standard errors of the best one wins, so curves stay simple if they can.
    """
    mixed = {blend: blend * view.deep + (1 - blend) * view.linear for blend in _BLENDS}
    loss = {blend: tier_curves.deviance(raw, view.table) for blend, raw in mixed.items()}
    best = min(_BLENDS, key=lambda blend: loss[blend].mean())
    for blend in _BLENDS:
        worse = loss[blend] - loss[best]
        if worse.mean() <= 2 * worse.std() / np.sqrt(len(worse)):
            break
    return blend


def full_fit(view: TableView, whole: Network, moments: Floats, blend: float) -> Fit:
    """The blend of linear curves and network, as one linear map of the inputs.

    moments [2, 2T of all]: mean and standard deviation of the networks' outputs.
    """
    mean, scale = moments[:, view.outputs]
    deep = np.vstack([whole.weights, whole.skip, whole.shift])[:, view.outputs] * scale
    deep[-1] += mean
    flat = tier_curves.regress(view.latents, view.table)
    linear = np.zeros_like(deep)
    first = len(whole.hidden_bias)
    linear[first + view.columns.start : first + view.columns.stop] = flat[:-1]
    linear[-1] = flat[-1]
    return Fit(
        FULL,
        blend * view.deep + (1 - blend) * view.linear,
        blend * deep + (1 - blend) * linear,
    )


def choose_fit(full: Fit, view: TableView, inputs: Floats) -> Fit:
    """See `choice.best_fit`. inputs [P, R + DENSE]: cross-fitted latents and counts of the whole corpus."""
    above = len(full.weights) - 1 - inputs.shape[1]  # the hidden layer, which the simple fits do not use
    seen = np.hstack([np.zeros((len(view.table), above)), inputs[view.rows]])
    own = slice(above + view.columns.start, above + view.columns.stop)
    counts = slice(seen.shape[1] - DENSE, seen.shape[1])
    return best_fit(full, seen, own, counts, view.table, view.fold)


def first_stage(own: TableCurves, view: TableView, blend: float, trunk: Trunk, inputs: Floats) -> FirstStage:
    """What the second stage of one table starts from. inputs [P, R + DENSE]: see `choose_fit`."""
    first = len(trunk.hidden_bias)
    linear = ibpo.linear_without(view.latents, view.table, view.fold)
    return own.first_stage(
        view.latents,
        slice(first + view.columns.start, first + view.columns.stop),
        view.fold,
        trunk.above(inputs[view.rows].astype(np.float32)),
        (1 - blend) * linear + blend * view.deep_without,
    )
