"""Trains a head: cross-fitted latents, a hidden layer, tier curves, corrections, IBPO, and the artefact."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_model import artifact
from router_model.arrays import Floats, Singles
from router_model.encoders.base import Encoder
from router_model.encoders.ngrams import DENSE, FEATURE_VERSION, HASHED
from router_model.head import Head, shipped_prior
from router_model.head_parts import Curves, Trunk, squared
from router_model.prior import Prior
from router_model.prompts import fingerprints
from router_model.training import ibpo, network, tier_curves
from router_model.training.choice import FULL
from router_model.training.ibpo import FirstStage
from router_model.training.network import Targets
from router_model.training.outcomes import OutcomeError, OutcomeTable, check_enough, log_tokens
from router_model.training.prior import Ladder, fit_prior
from router_model.training.table_curves import TableCurves, curves_of
from router_model.training.table_views import (
    TableView,
    choose_blend,
    choose_fit,
    first_stage,
    full_fit,
    table_views,
)
from router_model.training.trunk import Corpus, StageCallback, learn, reach

_SAMPLE = 512


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Settings of training, stored in the manifest."""

    latents: int = 8
    members: int = 2
    seed: int = 0
    objective: str = ibpo.DEFAULT
    """Of the second stage; a name in `objectives.OBJECTIVES`."""


@dataclass(frozen=True)
class Trained:
    """A trained head, and what its training saw, for methods that continue from here."""

    head: Head
    plain: dict[str, Curves]
    """The curves before correction, by table."""
    views: tuple[TableView, ...]
    estimates: dict[str, tuple[Floats, Floats]]
    """Cross-fitted, corrected P(right) and E[tokens], each [N, T], by table."""
    stages: dict[str, FirstStage]
    """Where the second stage starts, by table; small tables have none."""


def quiet(stage: str, share: float) -> None:
    """Ignores progress."""


def fit_head(
    tables: Sequence[OutcomeTable],
    settings: TrainingSettings,
    name: str = "head",
    progress: StageCallback = quiet,
    encoder: Encoder = HASHED,
    *,
    prior: Prior | None = None,
) -> Trained:
    """The first stage: train on tables that each hold the outcomes of one model or family of models.

    prior: for models without curves; by default that of the shipped head.

    Raises: OutcomeError, EncoderError.
    """
    _check(tables)
    progress("features", 0.0)
    corpus = Corpus.of(tables, settings.seed, encoder)
    latents = learn(corpus, settings.latents, lambda stage, share: progress(stage, 0.6 * share))
    targets, moments = _targets(corpus)
    progress("networks", 0.6)
    deep = network.without_folds(latents.inputs, targets, corpus.fold, settings.seed)
    progress("networks", 0.8)
    members = [
        network.fit_network(latents.inputs, targets, settings.seed + index)
        for index in range(settings.members)
    ]
    whole = network.mean(members)
    trunk = latents.trunk(whole.hidden, whole.hidden_bias)
    progress("tier curves", 0.95)
    views = tuple(table_views(corpus, latents, deep * moments[1] + moments[0]))
    found: dict[str, TableCurves] = {}
    stages = {}
    for view in views:
        blend = choose_blend(view)
        fit = choose_fit(full_fit(view, whole, moments, blend), view, latents.inputs)
        size, lengths = latents.inputs[view.rows, -DENSE], tier_curves.rising(view.table.lengths)
        own = found[view.table.name] = curves_of(fit, view.table, size, lengths)
        own.metrics["network_share"] = blend if fit.name == FULL else 0.0
        if own.improvable:
            stages[view.table.name] = first_stage(own, view, blend, trunk, latents.inputs)
    trunk, sample = _with_examples(trunk, latents.inputs, settings.seed)
    manifest = {
        "name": name,
        "settings": asdict(settings),
        "metrics": {name: own.metrics for name, own in found.items()},
        **_origin(tables, encoder),
        "strange": trunk.strange,
        "reach": trunk.reach,
    }
    progress("done", 1.0)
    trained = np.unique(fingerprints([prompt for table in tables for prompt in table.prompts]))
    sets = {name: own.curves for name, own in found.items()}
    head = Head(name, "unsaved", trunk, sets, sample, trained, manifest, prior or shipped_prior(), encoder)
    plain = {name: own.plain for name, own in found.items()}
    estimates = {
        name: tier_curves.apply_correction(own.correction, own.raw, own.table) for name, own in found.items()
    }
    return Trained(head, plain, views, estimates, stages)


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


def _entry(curves: Curves) -> dict[str, Any]:
    return {
        "name": curves.name,
        "tiers": list(curves.tiers),
        "shrink": curves.shrink,
        "lengths": dict(curves.lengths),
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
    arrays |= head.prior.record | {"sample": head.sample.astype(np.float16), "trained": head.trained}
    entries = [_entry(curves) for curves in head.sets.values()]
    manifest = dict(head.manifest) | {"sets": entries}
    digest = artifact.write_artifact(directory, manifest, arrays)
    return replace(head, digest=digest, manifest=manifest)


def train(  # noqa: PLR0917
    tables: Sequence[OutcomeTable],
    name: str,
    seed: int = 0,
    names: Sequence[str] | None = None,
    progress: StageCallback = quiet,
    encoder: Encoder = HASHED,
    ladders: Sequence[Ladder] = (),
) -> Head:
    """Train a head, both stages, on tables read with `partial=True`; `save` writes it.

    names: names of the tables' models; the tables' own names by default. ladders: the models of real
    thinking that the prior is fitted to.
    """
    called = [replace(t, name=n) for t, n in zip(tables, names or [t.name for t in tables], strict=True)]
    settings = TrainingSettings(latents=8 if len(tables) == 1 else 5, seed=seed)
    first = fit_head(called, settings, name, progress, encoder, prior=fit_prior(ladders))
    return ibpo.improve_head(first.head, first.stages, seed, settings.objective)
