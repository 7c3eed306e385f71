"""Training of the trunk: a linear map from the features to what the outcomes of all tables have in common.

The outcomes of one table are correlated across its tiers. Their leading principal components therefore carry
difficulty and length with much less noise than any single tier. Ridge regression predicts these components
from the text; the predictions are the latents z. Every later stage is fitted on cross-fitted latents, which
come from a model that did not see the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, hstack

from router_model.arrays import Floats, Singles
from router_model.artifact import UNSEEN
from router_model.encoders.base import Encoder
from router_model.encoders.ngrams import DENSE, HASHED, standardised
from router_model.head_parts import Trunk
from router_model.prompts import places
from router_model.training.outcomes import FOLDS, OutcomeTable

StageCallback = Callable[[str, float], None]
"""Called with the current stage and the share of the work that is finished."""

STRANGE = 0.99  # quantile of the training prompts' rarity, each one measured without itself
NEAR = 0.95  # quantile of the training prompts' distances to the nearest example
_NEAREST = 4.0  # distance, in standard deviations, that never counts as strange
_COUNTS_WEIGHT = 0.05  # weight of a standardised count beside an n-gram vector of unit length
_ALPHA = 3.0  # ridge penalty; cross-validation is flat between 1 and 8
_ROUNDS = 40
_PLANE = 64  # number of directions that span the training data's embeddings
_NOISE = 0.01  # share outside of the plane that never counts as strange


@dataclass(frozen=True)
class Corpus:
    """The P distinct prompts of several tables."""

    tables: tuple[OutcomeTable, ...]
    rows: tuple[NDArray[np.int64], ...]
    """Where each table's prompts are among the P."""
    fold: NDArray[np.int64]
    """[P]"""
    grams: Any
    """Sparse, [P, width]."""
    counts: Floats
    """[P, DENSE]"""
    embedded: bool = False
    """Whether the encoder embeds, so that `grams` holds unit vectors."""

    @classmethod
    def of(cls, tables: Sequence[OutcomeTable], seed: int, encoder: Encoder = HASHED) -> Corpus:
        """Encode the prompts. Folds depend on prompt and seed alone."""
        positions: dict[str, int] = {}
        rows = tuple(
            np.array([positions.setdefault(prompt, len(positions)) for prompt in table.prompts], np.int64)
            for table in tables
        )
        matrix = encoder.encode_all(list(positions))
        shape = len(positions), encoder.width
        grams = csr_matrix((matrix.values.astype(float), matrix.indices, matrix.indptr), shape)
        fold = (places(list(positions), seed) * FOLDS).astype(np.int64)
        counts = matrix.dense.astype(float)
        return cls(tuple(tables), rows, fold, grams, counts, encoder is not HASHED)


@dataclass(frozen=True)
class Latents:
    """The map from text to z, and its cross-fitted results for the corpus; `trunk` gives the serving form."""

    rarity: Floats
    mean: Floats
    scale: Floats
    weights: Floats
    shift: Floats
    inputs: Floats
    """Cross-fitted z and standardised counts, [P, R + DENSE]."""
    columns: tuple[slice, ...]
    """Which of z belong to each table."""
    strange: float
    plane: Floats | None = None

    def trunk(self, hidden: Floats, hidden_bias: Floats) -> Trunk:
        """The serving form, with a hidden layer."""
        single = np.float32
        return Trunk(
            rarity=self.rarity.astype(single),
            mean=self.mean.astype(single),
            scale=self.scale.astype(single),
            latents=self.weights[:-DENSE].astype(np.float16).astype(single),  # halves the artefact
            counts=self.weights[-DENSE:].astype(single),
            shift=self.shift.astype(single),
            hidden=hidden.astype(single),
            hidden_bias=hidden_bias.astype(single),
            strange=self.strange,
            plane=None if self.plane is None else self.plane.astype(single),
        )


def learn(corpus: Corpus, most: int, progress: StageCallback) -> Latents:
    """Fit at most `most` latents per table."""
    rarity, strange, plane = _familiar(corpus)
    mean, scale = corpus.counts.mean(axis=0), corpus.counts.std(axis=0) + 1e-2
    counts = standardised(corpus.counts, mean, scale)
    design = hstack([_unit(corpus.grams @ diags(rarity)), csr_matrix(counts * _COUNTS_WEIGHT)]).tocsr()
    weights, shifts, latents = [], [], []
    for index, table in enumerate(corpus.tables):
        progress(f"latents of {table.name}", index / len(corpus.tables))
        fitted = _fit(design, corpus.rows[index], corpus.fold, components(table, most))
        weights.append(fitted[0])
        shifts.append(fitted[1])
        latents.append(fitted[2])
    ends = np.cumsum([0, *(latent.shape[1] for latent in latents)])
    weight = np.hstack(weights)
    weight[-DENSE:] *= _COUNTS_WEIGHT
    return Latents(
        rarity=rarity,
        mean=mean,
        scale=scale,
        weights=weight,
        shift=np.concatenate(shifts),
        inputs=np.hstack([*latents, counts]),
        columns=tuple(slice(a, b) for a, b in pairwise(ends)),
        strange=strange,
        plane=plane,
    )


def _familiar(corpus: Corpus) -> tuple[Floats, float, Floats | None]:
    """The weight of each column, how strange a prompt may be, and the plane that strangeness refers to."""
    count, width = corpus.grams.shape
    if corpus.embedded:
        vectors, fold = corpus.grams.toarray(), corpus.fold
        most = max(min(_PLANE, width // 4, count // 8), 1)
        away = np.zeros(count)
        for part in np.unique(fold):
            here = fold == part
            inside = vectors[here] @ _plane(vectors[~here] if (~here).any() else vectors, most).T
            away[here] = 1 - (inside**2).sum(axis=1)
        strange = max(float(np.quantile(away, STRANGE)), _NOISE)
        return np.ones(width), strange, _plane(vectors, most)
    present = corpus.grams.copy()
    present.data[:] = 1.0
    documents = np.asarray(present.sum(axis=0)).ravel()
    rarity = np.where(documents > 0, np.log((1 + count) / (1 + documents)) + 1, 0.0)
    return rarity, _strange(present, documents, count), None


def _plane(vectors: Floats, most: int) -> Floats:
    """Leading directions of vectors [N, D], orthonormal, [K, D]."""
    directions: Floats = np.linalg.eigh(vectors.T @ vectors)[1][:, : -most - 1 : -1].T
    return directions


def components(table: OutcomeTable, most: int) -> Floats:
    """Leading principal components of correctness and log tokens over the tiers, unit variance, [N, R].

    Cells that were not measured take the mean of the prompt's measured cells.
    """
    raw = np.hstack([table.correct, np.log1p(table.tokens)])
    known = np.isfinite(raw)
    mean = np.nanmean(raw, axis=0)
    scale = np.nanstd(raw, axis=0) + 1e-6
    standard = np.where(known, (raw - mean) / scale, 0.0)
    standard += np.where(known, 0.0, standard.sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True))
    weight = np.sqrt((standard**2).mean(axis=0).sum())
    left, size, _ = np.linalg.svd(standard, full_matrices=False)
    kept = max(int((size > 1e-6 * size[0]).sum()), 1) if weight > 0 else 1
    scores = (left * size)[:, : min(most, kept)]
    result: Floats = scores / (scores.std(axis=0) + 1e-9)
    return result


def _unit(grams: Any) -> Any:
    length = np.sqrt(np.asarray(grams.multiply(grams).sum(axis=1)).ravel())
    return diags(1 / np.where(length > 0, length, 1.0)) @ grams


def _strange(present: Any, documents: Floats, count: int) -> float:
    """The rarity that 1 % of the training prompts exceed, each one measured without itself."""
    others = np.where(documents > 1, np.log((1 + count) / np.maximum(documents, 1)) + 1, UNSEEN)
    size = np.asarray(present.sum(axis=1)).ravel()
    return float(np.quantile((present @ others) / np.maximum(size, 1), STRANGE))


def reach(counts: Floats, examples: Singles, rows: NDArray[np.int64]) -> float:
    """The distance to the nearest other example that one in twenty training prompts exceeds.

    counts [P, DENSE] of all training prompts; examples [M, DENSE] are those of the prompts `rows`.
    """
    squares = (counts**2).sum(axis=1)[:, None] + (examples**2).sum(axis=1) - 2 * counts @ examples.T
    squares[rows, np.arange(len(rows))] = np.inf
    return max(float(np.sqrt(np.quantile(np.maximum(squares.min(axis=1), 0), NEAR))), _NEAREST)


def _fit(
    design: Any, rows: NDArray[np.int64], fold: NDArray[np.int64], targets: Floats
) -> tuple[Floats, Floats, Floats]:
    """Ridge weights and shift from all rows, and predictions for all prompts by models without their fold."""
    own = fold[rows]
    weights, shift = _ridge(design[rows], targets)
    latents = np.empty((design.shape[0], targets.shape[1]))
    for part in range(FOLDS):
        kept = own != part
        here = fold == part
        partial, moved = _ridge(design[rows[kept]], targets[kept])
        latents[here] = design[here] @ partial + moved
    centre, spread = latents[rows].mean(axis=0), latents[rows].std(axis=0)
    spread = np.where(spread > 1e-3, spread, 1.0)  # a constant latent stays constant
    return weights / spread, (shift - centre) / spread, (latents - centre) / spread


def _ridge(design: Any, targets: Floats) -> tuple[Floats, Floats]:
    """min ‖A w + m − Y‖² + α ‖w‖² by conjugate gradients on the dual (A Aᵀ + α) v = Y − m; w = Aᵀ v."""
    shift = targets.mean(axis=0) if len(targets) else np.zeros(targets.shape[1])
    residual = targets - shift
    dual, direction, left = np.zeros_like(residual), residual.copy(), (residual**2).sum(axis=0)
    enough = 1e-4 * left + 1e-12
    across = design.T.tocsr()
    for _ in range(_ROUNDS):
        image = design @ (across @ direction) + _ALPHA * direction
        step = left / np.maximum((direction * image).sum(axis=0), 1e-30)
        dual += step * direction
        residual = residual - step * image
        now = (residual**2).sum(axis=0)
        if (now < enough).all():
            break
        direction = residual + direction * (now / np.maximum(left, 1e-30))
        left = now
    return np.asarray(across @ dual), shift
