"""What the head must beat: rules, neighbours, regressions and trees.

Every method except the rules and `TextRidge` sees the features of `tfidf`. Outcomes with several samples
count as often as they were sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline, make_union

from router_model.arrays import Floats
from router_model.evaluation.methods import Estimates, Estimator
from router_model.evaluation.tfidf import Text, reduced
from router_model.training.outcomes import OutcomeTable, log_tokens


@dataclass(frozen=True, slots=True)
class _Grouped:
    """Means by group of prompts. Unknown groups get the overall mean."""

    key: Callable[[OutcomeTable], list[Any]]
    means: dict[Any, tuple[Floats, Floats]]
    overall: tuple[Floats, Floats]

    @classmethod
    def of(cls, table: OutcomeTable, key: Callable[[OutcomeTable], list[Any]], prior: float = 10) -> _Grouped:
        overall = table.correct.mean(axis=0), table.tokens.mean(axis=0)
        keys = key(table)
        means = {}
        for group in set(keys):
            mine = np.array([key == group for key in keys])
            share = mine.sum() / (mine.sum() + prior)
            means[group] = (
                share * table.correct[mine].mean(axis=0) + (1 - share) * overall[0],
                share * table.tokens[mine].mean(axis=0) + (1 - share) * overall[1],
            )
        return cls(key, means, overall)

    def estimate(self, table: OutcomeTable) -> Estimates:
        rows = [self.means.get(group, self.overall) for group in self.key(table)]
        return Estimates(np.stack([correct for correct, _ in rows]), np.stack([tokens for _, tokens in rows]))


@dataclass(frozen=True, slots=True)
class QuantileRule:
    """Means by deciles of one number per prompt, e.g. its length."""

    name: str
    score: Callable[[str], float]
    parts: int = 10

    def fit(self, train: OutcomeTable, seed: int) -> Estimator:  # noqa: ARG002
        """See `Method.fit`; the seed does not matter."""
        scores = [self.score(prompt) for prompt in train.prompts]
        edges = np.unique(np.quantile(scores, np.linspace(0, 1, self.parts + 1)[1:-1]))

        def part(table: OutcomeTable) -> list[Any]:
            return list(np.searchsorted(edges, [self.score(prompt) for prompt in table.prompts]))

        return _Grouped.of(train, part)


@dataclass(frozen=True, slots=True)
class DatasetIdentity:
    """Means by data set: a router that recognises the source of a prompt and nothing else."""

    name: str = "data set identity"

    def fit(self, train: OutcomeTable, seed: int) -> Estimator:  # noqa: ARG002
        """See `Method.fit`."""
        return _Grouped.of(train, lambda table: list(table.datasets))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Means of the k nearest training prompts by cosine (arXiv 2505.12601 §3)."""

    k: int = 100
    name: str = "kNN"

    def fit(self, train: OutcomeTable, seed: int) -> Estimator:  # noqa: ARG002
        """See `Method.fit`."""
        return _Neighbourhood(train, self.k)


class _Neighbourhood:
    def __init__(self, train: OutcomeTable, k: int) -> None:
        self._text, self._train = Text(train.prompts), train
        self._sparse = self._text.sparse(train.prompts)
        self._k = min(k, len(train))

    def estimate(self, table: OutcomeTable) -> Estimates:
        near = []
        for start in range(0, len(table), 500):
            close = (self._text.sparse(table.prompts[start : start + 500]) @ self._sparse.T).toarray()
            near.append(np.argpartition(-close, self._k - 1, axis=1)[:, : self._k])
        rows = np.concatenate(near)
        return Estimates(self._train.correct[rows].mean(axis=1), self._train.tokens[rows].mean(axis=1))


def _halves(table: OutcomeTable, tier: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Rows, 0/1 labels and weights: each prompt once as right and once as wrong, weighted by samples."""
    right = table.correct[:, tier] * table.samples[:, tier]
    wrong = table.samples[:, tier] - right
    rows = np.tile(np.arange(len(table)), 2)
    weights = np.concatenate([right, wrong])
    kept = weights > 0
    return rows[kept], np.repeat([1, 0], len(table))[kept], weights[kept]


class _Columns:
    """One classifier and one model of log tokens per tier, on features made by `view`."""

    def __init__(
        self,
        train: OutcomeTable,
        view: Callable[[tuple[str, ...]], Any],
        classifier: Callable[[], Any],
        regressor: Callable[[], Any],
    ) -> None:
        self._view = view
        seen = view(train.prompts)
        self._correct = [self._classifier(seen, train, tier, classifier) for tier in range(len(train.tiers))]
        logs = log_tokens(train)
        self._lengths = [regressor().fit(seen, logs[:, tier]) for tier in range(len(train.tiers))]
        guessed = np.exp(self._logs(seen))
        # from the median to the mean (Duan, 1983)
        self._smear = train.tokens.mean(axis=0) / guessed.mean(axis=0)

    @staticmethod
    def _classifier(seen: Any, train: OutcomeTable, tier: int, make: Callable[[], Any]) -> Any:
        rows, labels, weights = _halves(train, tier)
        if labels.min() == labels.max():
            return float(labels[0])
        return make().fit(seen[rows], labels, sample_weight=weights)

    def _logs(self, seen: Any) -> Floats:
        return np.stack([model.predict(seen) for model in self._lengths], axis=1)

    def estimate(self, table: OutcomeTable) -> Estimates:
        seen = self._view(table.prompts)
        correct = [
            np.full(len(table), model) if isinstance(model, float) else model.predict_proba(seen)[:, 1]
            for model in self._correct
        ]
        return Estimates(np.stack(correct, axis=1), np.exp(self._logs(seen)) * self._smear)


@dataclass(frozen=True, slots=True)
class Regression:
    """Logistic regression and ridge regression of log tokens for each tier (CARROT, arXiv 2502.03261)."""

    strength: float = 3.0
    name: str = "outcome regression"

    def fit(self, train: OutcomeTable, seed: int) -> Estimator:  # noqa: ARG002
        """See `Method.fit`."""
        return _Columns(
            train,
            Text(train.prompts).both,
            lambda: LogisticRegression(C=self.strength, max_iter=300, tol=1e-3),
            lambda: Ridge(alpha=1.0, solver="sparse_cg", tol=1e-3),
        )


@dataclass(frozen=True, slots=True)
class Boosting:
    """Gradient-boosted trees for each tier, on the leading directions of the features and the counts."""

    name: str = "gradient boosting"
    directions: int = 32
    trees: int = 60

    def fit(self, train: OutcomeTable, seed: int) -> Estimator:
        """See `Method.fit`."""
        shape = {
            "max_iter": self.trees, "max_leaf_nodes": 8, "learning_rate": 0.06, "l2_regularization": 5.0,
            "min_samples_leaf": 20, "max_bins": 63, "early_stopping": False, "random_state": seed,
        }  # fmt: skip
        return _Columns(
            train,
            reduced(train, self.directions, seed),
            lambda: HistGradientBoostingClassifier(**shape),
            lambda: HistGradientBoostingRegressor(**shape),
        )


@dataclass(frozen=True, slots=True)
class TextRidge:
    """scikit-learn's own TF-IDF with ridge regression, as one would try first. Not calibrated.

    It predicts correctness, and the logarithm of the tokens beyond those of the cheapest tier.
    """

    name: str = "TF-IDF ridge"
    alpha: float = 3.0

    def fit(self, train: OutcomeTable, seed: int) -> Estimator:  # noqa: ARG002
        """See `Method.fit`."""
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2, sublinear_tf=True)
        means = train.tokens.mean(axis=0)
        extra = train.tokens - train.tokens[:, [means.argmin()]]
        targets = np.hstack([train.correct, np.sign(extra) * np.log1p(np.abs(extra))])
        model = make_pipeline(make_union(words, grams), Ridge(alpha=self.alpha))
        return _Ridged(model.fit(train.prompts, targets), float(means.min()))


@dataclass(frozen=True, slots=True)
class _Ridged:
    model: Pipeline
    least: float

    def estimate(self, table: OutcomeTable) -> Estimates:
        correct, logs = np.hsplit(self.model.predict(table.prompts), 2)
        tokens = self.least + np.sign(logs) * np.expm1(np.abs(logs))
        return Estimates(np.clip(correct, 0, 1), np.maximum(tokens, 1.0))
