"""Trains a head: cross-fitted latents, a hidden layer, tier curves, corrections, and the artefact."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model import artifact
from router_model.arrays import Floats
from router_model.encoders.base import Encoder
from router_model.encoders.ngrams import FEATURE_VERSION, HASHED
from router_model.head import Head
from router_model.head_parts import Curves
from router_model.prompts import fingerprints
from router_model.training import network, tier_curves
from router_model.training.network import Network, Targets
from router_model.training.outcomes import FOLDS, OutcomeError, OutcomeTable, log_tokens
from router_model.training.smoothing import Smoothing, choose_smoothing
from router_model.training.trunk import Corpus, Latents, StageCallback, learn

_SAMPLE = 512
_BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
CAPPED = {"cap256": 0.0, "cap512": 256.0, "cap1024": 768.0, "cap2048": 1792.0}
"""Reasoning tokens beyond the shortest cap: the reference for models that were never measured."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Settings of training, stored in the manifest."""

    latents: int = 8
    members: int = 2
    seed: int = 0


class TableView(NamedTuple):
    """How the stages after the trunk see the N prompts of one table."""

    table: OutcomeTable
    rows: NDArray[np.int64]
    """Where the prompts are in the corpus, [N]."""
    columns: slice
    """The table's own latents among all."""
    latents: Floats
    """Cross-fitted, [N, R of the table]."""
    fold: NDArray[np.int64]
    """[N]"""
    linear: Floats
    """Cross-fitted logits and log tokens by regression, [N, 2T]."""
    deep: Floats
    """The same by the network, [N, 2T]."""


@dataclass(frozen=True)
class Trained:
    """A trained head, and what its training saw, for methods that continue from here."""

    head: Head
    plain: dict[str, Curves]
    """The curves before correction, by table."""
    views: tuple[TableView, ...]
    estimates: dict[str, tuple[Floats, Floats]]
    """Cross-fitted, corrected P(right) and E[tokens], each [N, T], by table."""
    raw: dict[str, Floats]
    """The same as logits and log tokens, [N, 2T]."""


def quiet(stage: str, share: float) -> None:
    """Ignores progress."""


def fit_head(
    tables: Sequence[OutcomeTable],
    settings: TrainingSettings,
    name: str = "head",
    progress: StageCallback = quiet,
    encoder: Encoder = HASHED,
) -> Trained:
    """Train on tables that each hold the outcomes of one model or family of models.

    Raises: OutcomeError, EncoderError.
    """
    _check(tables)
    progress("features", 0.0)
    corpus = Corpus.of(tables, settings.seed, encoder)
    latents = learn(corpus, settings.latents, lambda stage, share: progress(stage, 0.6 * share))
    targets, moments = _targets(corpus)
    progress("networks", 0.6)
    deep = _cross_network(latents.inputs, targets, corpus.fold, settings.seed) * moments[1] + moments[0]
    progress("networks", 0.8)
    members = [
        network.fit_network(latents.inputs, targets, settings.seed + index)
        for index in range(settings.members)
    ]
    whole = network.mean(members)
    trunk = latents.trunk(whole.hidden, whole.hidden_bias)
    progress("tier curves", 0.95)
    views = tuple(_views(corpus, latents, deep))
    plain, sets, metrics, estimates, logits = {}, {}, {}, {}, {}
    for index, view in enumerate(views):
        blend, smoothing = _choose_blend(view)
        raw = (blend * view.deep + (1 - blend) * view.linear) @ smoothing.matrix
        correction = tier_curves.correct_by(raw, view.table)
        column = _column(corpus, index)
        weights = _weights(view, whole, moments[:, column], column, blend) @ smoothing.matrix
        own = tier_curves.uncorrected(view.table, weights, _lengths(view.table, alone=len(tables) == 1))
        plain[own.name], sets[own.name] = own, tier_curves.corrected(own, correction)
        estimates[own.name] = tier_curves.apply_correction(correction, raw, view.table)
        logits[own.name] = raw * correction.scale + correction.move
        chosen = {"network_share": blend, "smoothing": smoothing.penalties}
        metrics[own.name] = tier_curves.metrics(view.table, raw, correction) | chosen
    rows = np.random.default_rng(settings.seed).permutation(len(latents.inputs))[:_SAMPLE]
    sample = trunk.above(latents.inputs[rows].astype(np.float32)).astype(np.float16).astype(np.float32)
    trained = np.unique(fingerprints([prompt for table in tables for prompt in table.prompts]))
    manifest = {
        "name": name,
        "feature_version": FEATURE_VERSION,
        "encoder": dict(encoder.identity),
        "settings": asdict(settings),
        "strange": trunk.strange,
        "data": {table.name: {"sha256": table.digest, "prompts": len(table)} for table in tables},
        "metrics": metrics,
        "versions": {"numpy": np.__version__, "python": platform.python_version()},
    }
    progress("done", 1.0)
    head = Head(name, "unsaved", trunk, sets, sample, trained, manifest, encoder)
    return Trained(head, plain, views, estimates, logits)


def _check(tables: Sequence[OutcomeTable]) -> None:
    names = [table.name for table in tables]
    if not tables:
        raise OutcomeError("no tables to train on")
    if len(set(names)) < len(names):
        raise OutcomeError(f"two tables are called {max(names, key=names.count)}")
    for table in tables:
        if len(table) < 2 * FOLDS:
            raise OutcomeError(f"{table.name}: {len(table)} prompts are too few to train on")


def _targets(corpus: Corpus) -> tuple[Targets, Floats]:
    """The targets of all tables side by side, and mean and standard deviation [2, 2T] of the outputs."""
    count = len(corpus.fold)
    parts = []
    for table, rows in zip(corpus.tables, corpus.rows, strict=True):
        block = np.zeros((3, count, len(table.tiers)))
        block[:, rows] = (
            np.nan_to_num(table.correct),
            log_tokens(table),
            tier_curves.sample_weights(table),
        )
        parts.append(block)
    correct, logs, weight = np.concatenate(parts, axis=2)
    total = np.maximum(weight.sum(axis=0), 1e-9)
    centre = (weight * logs).sum(axis=0) / total
    scale = np.sqrt((weight * (logs - centre) ** 2).sum(axis=0) / total) + 1e-3
    tiers = len(centre)
    moments = np.stack([np.concatenate((np.zeros(tiers), centre)), np.concatenate((np.ones(tiers), scale))])
    return Targets(correct, (logs - centre) / scale, weight), moments


def _cross_network(inputs: Floats, targets: Targets, fold: NDArray[np.int64], seed: int) -> Floats:
    """Outputs [P, 2T], for each prompt by a network that was trained without its fold."""
    outputs = np.zeros((len(inputs), 2 * targets.correct.shape[1]))
    for part in range(FOLDS):
        here = fold == part
        if here.any():
            outputs[here] = network.fit_network(inputs[~here], targets.take(~here), seed + part)(inputs[here])
    return outputs


def _column(corpus: Corpus, index: int) -> NDArray[np.int64]:
    """The positions of a table's logits and log tokens among the networks' outputs."""
    counts = [len(table.tiers) for table in corpus.tables]
    own = np.arange(counts[index]) + sum(counts[:index])
    return np.concatenate((own, own + sum(counts)))


def _views(corpus: Corpus, latents: Latents, deep: Floats) -> Iterator[TableView]:
    for index, (table, rows) in enumerate(zip(corpus.tables, corpus.rows, strict=True)):
        seen, fold = latents.inputs[rows, latents.columns[index]], corpus.fold[rows]
        linear = tier_curves.cross_regress(seen, table, fold)
        yield TableView(
            table, rows, latents.columns[index], seen, fold, linear, deep[rows][:, _column(corpus, index)]
        )


def _choose_blend(view: TableView) -> tuple[float, Smoothing]:
    """How much of the network to mix into the linear curves, by cross-fitted deviance, and the smoothing.

    The smallest share within two standard errors of the best one wins, so curves stay simple if they can.
    """
    mixed = {blend: blend * view.deep + (1 - blend) * view.linear for blend in _BLENDS}
    loss = {blend: tier_curves.deviance(raw, view.table) for blend, raw in mixed.items()}
    best = min(_BLENDS, key=lambda blend: loss[blend].mean())
    for blend in _BLENDS:
        worse = loss[blend] - loss[best]
        if worse.mean() <= 2 * worse.std() / np.sqrt(len(worse)):
            break
    return blend, choose_smoothing(mixed[blend], view.table)


def _weights(
    view: TableView, whole: Network, moments: Floats, outputs: NDArray[np.int64], blend: float
) -> Floats:
    """The blend of linear curves and network as one linear map of the inputs, intercept last."""
    deep = np.vstack([whole.weights, whole.skip, whole.shift])[:, outputs] * moments[1]
    deep[-1] += moments[0]
    flat = tier_curves.regress(view.latents, view.table)
    linear = np.zeros_like(deep)
    first = len(whole.hidden_bias)
    linear[first + view.columns.start : first + view.columns.stop] = flat[:-1]
    linear[-1] = flat[-1]
    mixed: Floats = blend * deep + (1 - blend) * linear
    return mixed


def _lengths(table: OutcomeTable, *, alone: bool) -> dict[str, float]:
    """Reasoning tokens of the tiers of a table that can serve as the reference for models not measured.

    They are the thinking budgets that the table states. Without them, for a head's only table, they are the
    tokens that each tier wrote beyond the cheapest one.
    """
    known = dict(table.lengths) or {tier: CAPPED[tier] for tier in table.tiers if tier in CAPPED}
    if not known and alone:
        means = np.nanmean(table.tokens, axis=0)
        order = np.argsort(means)
        known = {table.tiers[column]: round(float(means[column] - means.min()), 1) for column in order}
    return tier_curves.rising(known)


def _entry(curves: Curves) -> dict[str, Any]:
    return {
        "name": curves.name,
        "tiers": list(curves.tiers),
        "shrink": curves.shrink,
        "lengths": dict(curves.lengths),
        "bound": curves.bound,
    }


def save(head: Head, directory: Path) -> Head:
    """Write the artefact, replacing an older one as a whole, and return the head with its digest."""
    arrays: dict[str, NDArray[Any]] = {f"trunk.{name}": getattr(head.trunk, name) for name in artifact.TRUNK}
    arrays["trunk.latents"] = head.trunk.latents.astype(np.float16)
    if head.trunk.plane is not None:
        arrays["trunk.plane"] = head.trunk.plane
    for index, curves in enumerate(head.sets.values()):
        arrays |= {f"set{index}.{name}": getattr(curves, name) for name in artifact.CURVES}
    arrays |= {"sample": head.sample.astype(np.float16), "trained": head.trained}
    manifest = dict(head.manifest) | {"sets": [_entry(curves) for curves in head.sets.values()]}
    digest = artifact.write_artifact(directory, manifest, arrays)
    return replace(head, digest=digest, manifest=manifest)


def train(  # noqa: PLR0917
    tables: Sequence[OutcomeTable],
    out: Path,
    seed: int = 0,
    names: Sequence[str] | None = None,
    progress: StageCallback = quiet,
    encoder: Encoder = HASHED,
) -> Head:
    """Train a head on tables read with `partial=True` and write it to the directory `out`.

    names: names of the tables' models; the tables' own names by default.
    """
    called = [replace(t, name=n) for t, n in zip(tables, names or [t.name for t in tables], strict=True)]
    settings = TrainingSettings(latents=8 if len(tables) == 1 else 5, seed=seed)
    return save(fit_head(called, settings, out.name, progress, encoder).head, out)
