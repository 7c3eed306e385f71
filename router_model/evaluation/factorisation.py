"""Matrix factorisation as a router."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from router_model.arrays import Floats
from router_model.evaluation.methods import Estimates, Estimator
from router_model.evaluation.tfidf import reduced
from router_model.training.outcomes import OutcomeTable, log_tokens


@dataclass(frozen=True, slots=True)
class Factorisation:
    """Matrix factorisation (RouteLLM §4.2): P(right) = σ(⟨W x, v_tier⟩ + b_tier), and log tokens likewise."""

    name: str = "matrix factorisation"
    directions: int = 32
    rank: int = 8
    decay: float = 1e-3

    def fit(self, train: OutcomeTable, seed: int) -> Estimator:
        """See `Method.fit`. L-BFGS fits all factors at once, so no alternation is needed."""
        view = reduced(train, self.directions, seed)
        seen = view(train.prompts)
        return _Factors(train, view, seen, self, np.random.default_rng(seed))


class _Factors:
    def __init__(
        self,
        train: OutcomeTable,
        view: Callable[[tuple[str, ...]], Floats],
        seen: Floats,
        shape: Factorisation,
        random: np.random.Generator,
    ) -> None:
        self._view = view
        logs = log_tokens(train)
        self._centre, self._spread = logs.mean(axis=0), logs.std(axis=0) + 1e-6
        weights = train.samples / train.samples.mean()
        self._correct = _fit_factors(seen, train.correct, weights, shape, random, logistic=True)
        scaled = (logs - self._centre) / self._spread
        self._lengths = _fit_factors(seen, scaled, np.ones(logs.shape), shape, random, logistic=False)
        self._smear = train.tokens.mean(axis=0) / np.exp(self._logs(seen)).mean(axis=0)

    def _logs(self, seen: Floats) -> Floats:
        logs: Floats = np.clip(_product(seen, self._lengths), -4, 4) * self._spread + self._centre
        return logs

    def estimate(self, table: OutcomeTable) -> Estimates:
        seen = self._view(table.prompts)
        return Estimates(expit(_product(seen, self._correct)), np.exp(self._logs(seen)) * self._smear)


class _Parts(NamedTuple):
    project: Floats
    tiers: Floats
    bias: Floats


def _product(seen: Floats, parts: _Parts) -> Floats:
    product: Floats = seen @ parts.project @ parts.tiers + parts.bias
    return product


def _fit_factors(
    seen: Floats,
    target: Floats,
    weights: Floats,
    shape: Factorisation,
    random: np.random.Generator,
    *,
    logistic: bool,
) -> _Parts:
    width, tiers, rank = seen.shape[1], target.shape[1], shape.rank

    def parts(flat: Floats) -> _Parts:
        cut, end = width * rank, width * rank + rank * tiers
        return _Parts(flat[:cut].reshape(width, rank), flat[cut:end].reshape(rank, tiers), flat[end:])

    def loss(flat: Floats) -> tuple[float, Floats]:
        now = parts(flat)
        inner = seen @ now.project
        logits = inner @ now.tiers + now.bias
        error = (expit(logits) if logistic else logits) - target
        value = np.logaddexp(0, logits) - target * logits if logistic else error**2 / 2
        slope = weights * error / len(seen)
        gradient = [seen.T @ (slope @ now.tiers.T), inner.T @ slope, slope.sum(axis=0)]
        penalty = flat.copy()
        penalty[-tiers:] = 0
        return (
            float((weights * value).sum() / len(seen) + shape.decay * penalty @ penalty / 2),
            np.concatenate([part.ravel() for part in gradient]) + shape.decay * penalty,
        )

    start = np.concatenate([random.normal(0, 0.1, width * rank + rank * tiers), np.zeros(tiers)])
    return parts(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x)
