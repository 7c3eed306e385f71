"""Puts a head in place that has learnt from a measured model, if it is the better one on prompts left out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.cli.heads import fail
from gateway.cli.measured_gain import gain_sentences
from gateway.config.settings import BASELINE, Settings
from gateway.evidence.measuring.ceiling import CurvePoint, height, mixtures
from gateway.evidence.measuring.intervals import average
from gateway.evidence.measuring.summary import HeadSummary
from gateway.evidence.measuring.work import MeasuredRung
from gateway.routing.call import Target
from gateway.snapshot import Snapshot
from router_model.allocation import best_tiers
from router_model.arrays import Floats
from router_model.artifact import ArtifactError
from router_model.encoders.base import EncoderError, Source
from router_model.head import Head, load_named
from router_model.predictor import Predictor, TierLength
from router_model.prompts import fingerprints
from router_model.training.calibrate import calibrate
from router_model.training.outcomes import (
    FEWEST,
    FOLDS,
    OutcomeError,
    OutcomeTable,
    check_enough,
    folds,
    read_table,
)
from router_model.training.train import save

_SHIPPED = frozenset({BASELINE, "general", "tiny"})
_SURE = 1e-3  # estimates are taken to be no surer than this
_ANSWER = 4096
_PRICES = np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 81)]).tolist()


def put_head_in_place(
    snapshot: Snapshot, target: Target, rungs: Sequence[MeasuredRung], path: Path, seed: int
) -> HeadSummary:
    """Calibrate a head on the table in `path`, and keep the better of it and the head in use.

    A head in a directory is replaced there, and a copy is kept; otherwise the new one gets a directory beside
    the table.
    """
    settings = snapshot.settings
    try:
        base = load_named("general" if settings.head == BASELINE else settings.head, _encoder(settings))
        table = _ordered(replace(read_table(path, partial=True), name=target.name), rungs)
        check_enough(table, "calibrate")
        new = _left_out(base, table, seed)
        old = _estimates(snapshot.router.predictor, table, target.ladder.lengths, [r.index for r in rungs])
        said, better = _gate(old, new, table, _unseen(snapshot.router.predictor, table))
        sentences = [*said, *_choices(new, table, settings.price), *gain_sentences(*new, table)]
        if better:
            place, kept = _place(settings.head, path)
            saved = save(calibrate(base, table, seed), place)
            sentences.append(_how_to_use(saved.version, len(table), place, kept))
    except OutcomeError as error:
        return HeadSummary((f"No head was calibrated: {error}.",))
    except (ArtifactError, EncoderError, OSError) as error:
        fail(error)
    return HeadSummary(tuple(sentences), _curve(new, table))


def _encoder(settings: Settings) -> Source | None:
    encoder = settings.encoder
    if encoder is None:
        return None
    return Source(encoder.source, key=encoder.api_key.get_secret_value() if encoder.api_key else None)


def _ordered(table: OutcomeTable, rungs: Sequence[MeasuredRung]) -> OutcomeTable:
    """The table with its rungs from short to long. A row may lack some."""
    columns = [table.tiers.index(rung.name) for rung in rungs if rung.name in table.tiers]
    if len(columns) < len(rungs):
        raise OutcomeError(f"{table.name}: a rung has no outcomes")
    return replace(
        table,
        tiers=tuple(table.tiers[column] for column in columns),
        correct=table.correct[:, columns],
        tokens=table.tokens[:, columns],
        samples=table.samples[:, columns],
    )


_Estimates = tuple[Floats, Floats]
"""P(right) and completion tokens, [N, T] each."""


def _left_out(base: Head, table: OutcomeTable, seed: int) -> _Estimates:
    """What heads expect of each prompt that learnt from the other prompts."""
    fold = folds(table, FOLDS, seed)
    if len(np.unique(fold)) < FOLDS:
        fold = np.arange(len(table)) % FOLDS
    lengths = [TierLength(name, round(table.lengths[name]), _ANSWER) for name in table.tiers]
    found = np.full((2, *table.correct.shape), np.nan)
    for part in range(FOLDS):
        rows = fold == part
        fitted = calibrate(base, table.take(~rows), seed)
        found[:, rows] = _estimates(fitted, table.take(rows), lengths, range(len(lengths)))
    return found[0], found[1]


def _estimates(
    predictor: Predictor, table: OutcomeTable, lengths: Sequence[TierLength], columns: Sequence[int]
) -> _Estimates:
    predictions = [predictor.predict(prompt, table.name, lengths) for prompt in table.prompts]
    correct = np.array([each.correct for each in predictions])[:, list(columns)]
    tokens = np.array([each.tokens for each in predictions])[:, list(columns)]
    return correct, tokens


def _unseen(predictor: Predictor, table: OutcomeTable) -> NDArray[np.bool_]:
    """The prompts from which the head in use has not learnt about this model."""
    if isinstance(predictor, Head) and table.name in predictor.sets:
        return ~np.isin(fingerprints(table.prompts), predictor.trained)
    return np.ones(len(table), bool)


def _gate(
    old: _Estimates, new: _Estimates, table: OutcomeTable, unseen: NDArray[np.bool_]
) -> tuple[list[str], bool]:
    """Whether the new head is the better one: by the log loss of P(right), on prompts new to both."""
    if unseen.sum() < FEWEST:
        said = f"only {unseen.sum()} prompts are new to the head in use, so the two were not compared"
        return [f"The new head is kept: {said}."], True
    losses = [_log_loss(each, table)[unseen] for each in (old[0], new[0])]
    gain = average(losses[0] - losses[1])
    better = gain.mean > 0
    theirs, others = (losses[1], losses[0]) if better else (losses[0], losses[1])
    numbers = (
        f"log loss {theirs.mean():.3f} against {others.mean():.3f}, {abs(gain.mean):.3f} less"
        f" ({gain.low if better else -gain.high:+.3f} to {gain.high if better else -gain.low:+.3f}),"
        f" on {gain.prompts:,} prompts that were left out"
    ).replace("-", "−")
    kept = "The new head is kept" if better else "The head in use is kept, and no other was written"
    return [f"{kept}: its estimates of P(right) are the better ones ({numbers})."], better


def _log_loss(correct: Floats, table: OutcomeTable) -> Floats:
    """Mean over the rungs of each prompt, [N]."""
    sure = np.clip(correct, _SURE, 1 - _SURE)
    right = np.nan_to_num(table.correct)
    known = table.samples > 0
    each = -(right * np.log(sure) + (1 - right) * np.log(1 - sure)) * known
    losses: Floats = each.sum(axis=1) / known.sum(axis=1)
    return losses


def _points(new: _Estimates, table: OutcomeTable, prices: Sequence[float]) -> Iterator[CurvePoint]:
    """What the choices of the left-out estimates get at each price, on prompts with all outcomes."""
    whole = np.flatnonzero((table.samples > 0).all(axis=1))
    for price in prices if len(whole) else ():
        chosen = best_tiers(new[0][whole], new[1][whole], price)
        yield CurvePoint(
            float(table.tokens[whole, chosen].mean()), float(table.correct[whole, chosen].mean())
        )


def _curve(new: _Estimates, table: OutcomeTable) -> tuple[CurvePoint, ...]:
    points = list(_points(new, table, _PRICES))
    return mixtures(points) if points else ()


def _choices(new: _Estimates, table: OutcomeTable, price: float) -> Iterator[str]:
    """What the head would do at the configured price, against fixed rungs with as many tokens."""
    whole = (table.samples > 0).all(axis=1)
    fixed = [
        CurvePoint(float(tokens), float(correct))
        for tokens, correct in zip(
            table.tokens[whole].mean(axis=0), table.correct[whole].mean(axis=0), strict=True
        )
    ]
    for tokens, right in _points(new, table, [price]):
        yield (
            f"At the price {price:g} its choices get {100 * right:.1f} % right with {tokens:,.0f} tokens"
            " per prompt, on prompts left out; fixed rungs get"
            f" {100 * height(mixtures(fixed), tokens):.1f} % with as many."
        )


def _place(named: str, table: Path) -> tuple[Path, Path | None]:
    """Where the new head goes, and where the old one is kept; None if there is no old one."""
    if named in _SHIPPED:
        return table.with_name(f"{table.stem}-head"), None
    kept = Path(f"{named.rstrip('/')}.before-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    shutil.copytree(named, kept)
    return Path(named), kept


def _how_to_use(version: str, prompts: int, place: Path, kept: Path | None) -> str:
    said = f"{version} knows the model from {prompts:,} prompts."
    if kept is None:
        return f"{said} To use it, set `head: {place}` in the configuration."
    return f"{said} Gateways read it from {place} at the next SIGHUP. The old head is in {kept}."
