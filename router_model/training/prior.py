"""Fits the prior for models that were never measured, to tables of real thinking.

Every ladder counts for the square root of its prompts, so that large tables do not outvote models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from router_model.arrays import Floats
from router_model.encoders.ngrams import HASHED, standardised
from router_model.prior import Prior
from router_model.training.outcomes import OutcomeError, OutcomeTable
from router_model.training.tier_curves import linear, logistic

FEWEST_LADDERS = 3
"""Below this number of models, nothing can be said about models in general."""

_FULL = 0.98  # share of a budget above which a thought counts as cut short
_PENALTY = 30.0  # ridge penalty of the thought's length, in prompts
_BETWEEN = 0.25  # inverse variance of a model's own shift of ln(length)
_RANGE = (0.005, 0.995)  # quantiles beyond which nothing is extrapolated
_PLAIN_PENALTY = 30.0  # of the readings without thinking


@dataclass(frozen=True)
class Ladder:
    """The tiers of one model in an outcome table, with their thinking budgets; cheapest first."""

    table: OutcomeTable
    budgets: Mapping[str, float]
    """Thinking tokens by tier; 0 without thinking."""

    def __post_init__(self) -> None:
        """Raises: OutcomeError, for tiers that the table lacks, for fewer than two, or for equal budgets."""
        if len(self.budgets) < 2:
            raise OutcomeError(f"{self.table.name}: a ladder needs two tiers")
        if not len(self.table.select(list(self.budgets))):
            raise OutcomeError(f"{self.table.name}: no row has all of the tiers {', '.join(self.budgets)}")
        if len(set(self.budgets.values())) < len(self.budgets):
            raise OutcomeError(f"{self.table.name}: two tiers have the same thinking budget")

    @property
    def measured(self) -> OutcomeTable:
        """The rows that have all of the tiers, with the tiers in the order of their budgets."""
        return self.table.select(sorted(self.budgets, key=self.budgets.__getitem__))

    @property
    def plain(self) -> bool:
        """Whether one of the tiers does not think."""
        return 0 in self.budgets.values()

    @property
    def lengths(self) -> Floats:
        """Thinking budgets, ascending, [T]."""
        return np.sort(np.array(list(self.budgets.values()), float))


class _Thoughts(NamedTuple):
    """One row for each prompt of each ladder that thinks."""

    counts: Floats
    """Standardised, [N, DENSE]."""
    length: Floats
    """ln(tokens) at the longest budget, [N]."""
    cut: NDArray[np.bool_]
    """Whether the budget ended it, [N]."""
    ladder: NDArray[np.int64]
    weight: Floats


def fit_prior(ladders: Sequence[Ladder]) -> Prior | None:
    """The prior of these ladders; None if there are too few, or none with and none without thinking."""
    parts = [(ladder.measured, ladder.lengths) for ladder in ladders]
    counts = [HASHED.encode_all(list(table.prompts)).dense.astype(float) for table, _ in parts]
    thinking = [index for index, (_, budgets) in enumerate(parts) if budgets[-1] > 0]
    plain = [index for index, (_, budgets) in enumerate(parts) if budgets[0] == 0]
    if len(thinking) < FEWEST_LADDERS or not plain:
        return None
    everything = np.concatenate(counts)
    mean, scale = everything.mean(axis=0), everything.std(axis=0) + 1e-2
    standard = [standardised(each, mean, scale) for each in counts]
    weight = [np.full(len(table), 10 / math.sqrt(len(table))) for table, _ in parts]
    slopes, steepness = _fit_thoughts(_thoughts(parts, standard, weight, thinking))
    design, heavy = (np.concatenate([each[k] for k in plain]) for each in (standard, weight))
    right = np.concatenate([parts[k][0].correct[:, 0] for k in plain])
    answers = np.log(np.maximum(np.concatenate([parts[k][0].tokens[:, 0] for k in plain]), 1.0))
    answer = linear(design, answers, heavy, _PLAIN_PENALTY)
    fitted = np.stack([slopes, answer, logistic(design, right, heavy, _PLAIN_PENALTY)], axis=1)
    residual = answers - design @ answer[:-1] - answer[-1]
    written = [np.exp(each @ answer[:-1] + answer[-1]) for each in standard]
    low, high = np.quantile(np.concatenate(standard) @ fitted[:-1] + fitted[-1], _RANGE, axis=0)
    return Prior(
        mean=mean,
        scale=scale,
        weights=fitted[:-1],
        bias=fitted[-1],
        low=low,
        high=high,
        steepness=steepness,
        repaired=_repaired([parts[k] for k in plain]),
        cut=_cut([parts[k] for k in thinking]),
        forced=_forced(parts, written),
        scatter=float(np.sqrt(np.average(residual**2, weights=heavy))),
    )


def _thoughts(
    parts: Sequence[tuple[OutcomeTable, Floats]],
    standard: Sequence[Floats],
    weight: Sequence[Floats],
    thinking: Sequence[int],
) -> _Thoughts:
    longest = [np.maximum(parts[k][0].tokens[:, -1], 1.0) for k in thinking]
    return _Thoughts(
        np.concatenate([standard[k] for k in thinking]),
        np.log(np.concatenate(longest)),
        np.concatenate(
            [tokens >= _FULL * parts[k][1][-1] for k, tokens in zip(thinking, longest, strict=True)]
        ),
        np.repeat(np.arange(len(thinking)), [len(parts[k][0]) for k in thinking]),
        np.concatenate([weight[k] for k in thinking]),
    )


def _fit_thoughts(seen: _Thoughts) -> tuple[Floats, float]:
    """Weights of ln(median length), intercept last, and the steepness of the law for an unknown model.

    An accelerated failure time model with a log-logistic law, thoughts that were cut being censored, and a
    shift for every model (Kalbfleisch and Prentice, ch. 3). The shifts' variance joins that within models,
    because a new model's shift is not known.
    """
    width, models = seen.counts.shape[1], int(seen.ladder.max()) + 1
    pull = np.concatenate([np.full(width, _PENALTY), [1e-6], np.full(models, _BETWEEN), [0.0]])

    def loss(at: Floats) -> tuple[float, Floats]:
        slopes, shift, own, log_k = at[:width], at[width], at[width + 1 : -1], at[-1]
        k = math.exp(log_k)
        gap = seen.length - seen.counts @ slopes - shift - own[seen.ladder]
        late = np.logaddexp(0, k * gap)
        likely = np.where(seen.cut, -late, log_k + k * gap - 2 * late)
        share = 1 / (1 + np.exp(-np.clip(k * gap, -50, 50)))
        pushed = seen.weight * np.where(seen.cut, -share, 1 - 2 * share)  # by k · gap
        by_model = np.bincount(seen.ladder, pushed, models)
        slope = np.concatenate([
            k * (seen.counts.T @ pushed), [k * pushed.sum()], k * by_model,
            [-(pushed * k * gap).sum() - seen.weight[~seen.cut].sum()],
        ])  # fmt: skip
        return float(-(seen.weight * likely).sum() + (pull * at**2).sum() / 2), slope + pull * at

    start = np.zeros(width + models + 2)
    start[width] = np.average(seen.length, weights=seen.weight)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    own, k = found[width + 1 : -1], math.exp(found[-1])
    variance = math.pi**2 / (3 * k**2) + float((own**2).sum() / max(models - 1, 1))
    return found[: width + 1], math.pi / math.sqrt(3 * variance)


def _repaired(parts: Sequence[tuple[OutcomeTable, Floats]]) -> float:
    """Share of the errors without thinking that thoughts repair which end by themselves."""
    gained = missed = 0.0
    for table, budgets in parts:
        scale = 1 / math.sqrt(len(table))
        for column in range(1, len(budgets)):
            ended = table.tokens[:, column] < _FULL * budgets[column]
            gained += scale * float((table.correct[ended, column] - table.correct[ended, 0]).sum())
            missed += scale * float((1 - table.correct[ended, 0]).sum())
    return float(np.clip(gained / missed if missed else 0.0, 0, 1))


def _cut(parts: Sequence[tuple[OutcomeTable, Floats]]) -> float:
    """P(right) of thoughts that were cut short; every ladder counts the same."""
    means = []
    for table, budgets in parts:
        cut = (table.tokens >= _FULL * budgets) & (budgets > 0)
        if cut.any():
            means.append(float(table.correct[cut].mean()))
    return float(np.mean(means)) if means else 0.5


def _forced(parts: Sequence[tuple[OutcomeTable, Floats]], written: Sequence[Floats]) -> float:
    """Tokens of forced answers, beyond the budget, as a share of the answers written without thinking."""
    shares = []
    for (table, budgets), answer in zip(parts, written, strict=True):
        over = (table.tokens > budgets) & (budgets > 0)
        if over.any():
            shares.append(float((table.tokens - budgets)[over].mean() / answer[over.any(axis=1)].mean()))
    return float(np.mean(shares)) if shares else 0.0
