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
from router_model.arrays import Floats, Singles
from router_model.encoders.base import Encoder
from router_model.encoders.ngrams import DENSE, FEATURE_VERSION, HASHED
from router_model.head import Head
from router_model.head_parts import Curves, Trunk, squared
from router_model.prompts import fingerprints
from router_model.training import network, tier_curves
from router_model.training.choice import CONSTANTS, Fit, best_fit
from router_model.training.network import Network, Targets
from router_model.training.outcomes import OutcomeError, OutcomeTable, check_enough, log_tokens
from router_model.training.trunk import Corpus, Latents, StageCallback, learn, reach

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
    deep = network.cross_fit(latents.inputs, targets, corpus.fold, settings.seed) * moments[1] + moments[0]
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
        blend = _choose_blend(view)
        weights = _weights(view, whole, moments[:, _column(corpus, index)], _column(corpus, index), blend)
        full = Fit("head", blend * view.deep + (1 - blend) * view.linear, weights)
        fit = _choose_fit(full, view, latents.inputs)
        raw, correction = fit.raw, tier_curves.correct_by(fit.raw, view.table)
        own = tier_curves.uncorrected(view.table, fit.weights, _lengths(view.table, alone=len(tables) == 1))
        if fit.name != CONSTANTS:
            size = latents.inputs[view.rows, -DENSE]
            own = replace(own, by_length=tier_curves.by_length(view.table, size))
        plain[own.name], sets[own.name] = own, tier_curves.corrected(own, correction)
        estimates[own.name] = tier_curves.apply_correction(correction, raw, view.table)
        logits[own.name] = raw * correction.scale + correction.move
        metrics[own.name] = tier_curves.metrics(view.table, raw, correction)
        metrics[own.name] |= {"fit": fit.name, "network_share": blend if fit is full else 0.0}
    trunk, sample = _with_examples(trunk, latents.inputs, settings.seed)
    trained = np.unique(fingerprints([prompt for table in tables for prompt in table.prompts]))
    manifest = {
        "name": name,
        "settings": asdict(settings),
        "metrics": metrics,
        **_origin(tables, encoder),
        "strange": trunk.strange,
        "reach": trunk.reach,
    }
    progress("done", 1.0)
    head = Head(name, "unsaved", trunk, sets, sample, trained, manifest, encoder)
    return Trained(head, plain, views, estimates, logits)


def _with_examples(trunk: Trunk, inputs: Floats, seed: int) -> tuple[Trunk, Singles]:
    """The trunk with M of P training prompts as examples, given [P, R + DENSE], and their inputs."""
    rows = np.random.default_rng(seed).permutation(len(inputs))[:_SAMPLE]
    sample = trunk.above(inputs[rows].astype(np.float32)).astype(np.float16).astype(np.float32)
    counts, away = (
        np.ascontiguousarray(sample[:, -DENSE:]),
        reach(inputs[:, -DENSE:], sample[:, -DENSE:], rows),
    )
    return replace(trunk, examples=counts, squares=squared(counts), reach=away), sample


def _origin(tables: Sequence[OutcomeTable], encoder: Encoder) -> dict[str, Any]:
    """The entries of a manifest about what a head was trained from and with."""
    return {
        "feature_version": FEATURE_VERSION,
        "encoder": dict(encoder.identity),
        "data": {table.name: {"sha256": table.digest, "prompts": len(table)} for table in tables},
        "versions": {"numpy": np.__version__, "python": platform.python_version()},
    }


def _check(tables: Sequence[OutcomeTable]) -> None:
    names = [table.name for table in tables]
    if not tables:
        raise OutcomeError("no tables to train on")
    if len(set(names)) < len(names):
        raise OutcomeError(f"two tables are called {max(names, key=names.count)}")
    for table in tables:
        check_enough(table, "train")


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


def _choose_fit(full: Fit, view: TableView, inputs: Floats) -> Fit:
    """See `choice.best_fit`. inputs [P, R + DENSE]: cross-fitted latents and counts of the whole corpus."""
    above = len(full.weights) - 1 - inputs.shape[1]  # the hidden layer, which the simple fits do not use
    seen = np.hstack([np.zeros((len(view.table), above)), inputs[view.rows]])
    own = slice(above + view.columns.start, above + view.columns.stop)
    counts = slice(seen.shape[1] - DENSE, seen.shape[1])
    return best_fit(full, seen, own, counts, view.table, view.fold)


def _choose_blend(view: TableView) -> float:
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

    For a head's only table they are the tokens that each tier wrote beyond the cheapest one.
    """
    known = {tier: CAPPED[tier] for tier in table.tiers if tier in CAPPED}
    if not known and alone:
        means = np.nanmean(table.tokens, axis=0)
        order = np.argsort(means)
        known = {table.tiers[column]: round(float(means[column] - means.min()), 1) for column in order}
    rising = dict(sorted(known.items(), key=lambda item: item[1]))
    distinct = len(set(rising.values())) == len(rising) > 1
    return rising if distinct else {}


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
        arrays |= {
            f"set{index}.{name}": getattr(curves, name) for name in (*artifact.CURVES, *artifact.ALONE)
        }
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
