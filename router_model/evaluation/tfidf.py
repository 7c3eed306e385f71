"""The features of all baselines except the rules: n-grams weighted by rarity (TF-IDF), and plain counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import StandardScaler

from router_model.arrays import Floats
from router_model.encoders.ngrams import SIZE, ngram_matrix
from router_model.training.outcomes import OutcomeTable


@lru_cache(maxsize=64)
def _encoded(prompts: tuple[str, ...]) -> tuple[Any, Floats]:
    matrix = ngram_matrix(prompts)
    shape = (len(prompts), SIZE)
    return csr_matrix((matrix.values, matrix.indices, matrix.indptr), shape), matrix.dense.astype(float)


class Text:
    """TF-IDF rows of unit length and standardised counts, both fitted to the training prompts."""

    def __init__(self, prompts: tuple[str, ...]) -> None:
        sparse, dense = _encoded(prompts)
        seen = np.bincount(sparse.indices, minlength=SIZE)
        self._rarity = np.log((1 + len(prompts)) / (1 + seen)) + 1
        self._scale = StandardScaler().fit(dense)

    def sparse(self, prompts: tuple[str, ...]) -> Any:
        """[N, SIZE], rows of unit length."""
        rows = _encoded(prompts)[0].multiply(self._rarity).tocsr()
        norms = np.sqrt(rows.multiply(rows).sum(axis=1)).A1
        return rows.multiply(1 / np.maximum(norms, 1e-9)[:, None]).tocsr()

    def dense(self, prompts: tuple[str, ...]) -> Floats:
        """[N, counts], mean 0 and variance 1 in training, clipped to limit outliers."""
        scaled: Floats = np.clip(self._scale.transform(_encoded(prompts)[1]), -4, 4)
        return scaled

    def both(self, prompts: tuple[str, ...], weight: float = 0.1) -> Any:
        """Both side by side; `weight` makes the counts small beside the unit rows."""
        return hstack([self.sparse(prompts), csr_matrix(self.dense(prompts) * weight)]).tocsr()


def reduced(train: OutcomeTable, size: int, seed: int) -> Callable[[tuple[str, ...]], Floats]:
    """Leading directions of the sparse rows, standardised, beside the counts: [N, size + counts]."""
    text = Text(train.prompts)
    rows = text.sparse(train.prompts)
    turn = TruncatedSVD(min(size, len(train) - 1), random_state=seed).fit(rows)
    scale = StandardScaler().fit(turn.transform(rows))

    def view(prompts: tuple[str, ...]) -> Floats:
        return np.hstack([scale.transform(turn.transform(text.sparse(prompts))), text.dense(prompts)])

    return view
