"""What is known about a reasoning model that was never measured: how long it thinks, and what that gains.

Tables of real thinking show three things that hold for models and prompts which a head never saw:

* A thought that ends by itself repairs a share of the errors that the model makes without thinking. A thought
  that is cut short is mostly wrong, even when an answer is forced.
* How long a model thinks depends on the prompt, but much more on the model. Prompts tell little about which
  of them gain.
* So a short thinking budget is worse than none, and whether a prompt should think at all is decided by the
  length that its thought would have: if it does not fit, thinking costs tokens and loses the answer.

The length of a thought follows a log-logistic law, as in accelerated failure time models (Kalbfleisch and
Prentice, ch. 3): P(longer than t) = 1 / (1 + (t / m)^k), where the median m depends on the prompt.

Between two thinking budgets, every prompt gains the same per token, at the pooled rate of all tables. The
price alone therefore decides *how long* prompts think, and never shuffles prompts among budgets by noise:
replayed on any table, such a choice lies on the line through the fixed budgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from router_model.arrays import Floats, Singles
from router_model.encoders.ngrams import standardised
from router_model.predictor import Prediction, TierLength

_GRID = np.geomspace(4, 1 << 18, 64)  # thinking tokens at which the law is evaluated
LN_GRID = np.log(_GRID)
_ODDS95 = 19.0  # odds of the 95th percentile
_Z95 = 1.645  # the 95th percentile of the standard normal distribution
_ARRAYS = ("mean", "scale", "weights", "bias", "low", "high")
_NUMBERS = ("steepness", "repaired", "cut", "forced", "scatter")


class Readings(NamedTuple):
    """What the prior reads off prompts; each a number or [N]."""

    thought: Floats
    """ln of the median length of the thought, in tokens."""
    answer: Floats
    """ln of the completion tokens without thinking."""
    right: Floats
    """P(right) without thinking."""


@dataclass(frozen=True, eq=False)
class Prior:
    """Estimates for models that were never measured."""

    mean: Floats
    """Of the counts of a prompt (`ngrams.COUNTS`), [DENSE]."""
    scale: Floats
    """Standard deviation of the counts, [DENSE]."""
    weights: Floats
    """Of the standardised counts, for the three `Readings`, [DENSE, 3]; the last one as a logit."""
    bias: Floats
    """[3]"""
    low: Floats
    """The lowest readings on the prompts that the prior was fitted to, [3]; others are cut off there."""
    high: Floats
    """The highest ones, [3]."""
    steepness: float
    """k of the length law. It covers the differences between models, not only between prompts."""
    repaired: float
    """Share of the errors without thinking that a finished thought repairs, in [0, 1]."""
    cut: float
    """P(right) of a thought that was cut short."""
    forced: float
    """Tokens of an answer after a thought, as a share of those of an answer without a thought."""
    scatter: float
    """Standard deviation of ln(completion tokens) without thinking around the estimate."""

    @classmethod
    def of(cls, record: Mapping[str, NDArray[Any]]) -> Self:
        """From the arrays of an artefact."""
        arrays = {name: record[f"prior.{name}"].astype(float) for name in _ARRAYS}
        numbers = {name: record[f"prior.{name}"].item() for name in _NUMBERS}
        return cls(**arrays, **numbers)  # type: ignore[arg-type]

    @property
    def record(self) -> dict[str, NDArray[Any]]:
        """The arrays of an artefact."""
        return {f"prior.{name}": np.asarray(getattr(self, name)) for name in (*_ARRAYS, *_NUMBERS)}

    def read(self, counts: Singles | Floats) -> Readings:
        """Counts [..., DENSE] -> readings [...]."""
        standard = standardised(counts, self.mean, self.scale)
        seen = np.minimum(np.maximum(standard @ self.weights + self.bias, self.low), self.high)
        thought, answer, logit = np.moveaxis(seen, -1, 0)
        return Readings(thought, answer, 1 / (1 + np.exp(-logit)))

    @cached_property
    def average(self) -> Readings:
        """The readings of an average prompt of the tables that the prior was fitted to."""
        return self.read(self.mean)

    def finished(self, right: Floats) -> Floats:
        """P(right) of a thought that ends by itself, from P(right) without thinking."""
        return right + self.repaired * (1 - right)

    def unfinished(self, thought: Floats, at: Floats | float) -> Floats:
        """P(the thought is longer than `at` tokens), with ln medians and ln tokens that broadcast."""
        longer: Floats = 1 / (1 + np.exp(np.clip(self.steepness * (at - thought), -60, 60)))
        return longer


@dataclass(frozen=True, eq=False)
class PriorLadder:
    """The prior for the T tiers or rungs of one model; made once per model."""

    prior: Prior
    thinking: tuple[int, ...]
    """Which of the tiers think, by position."""
    top: float
    """ln of the longest thinking budget; only used if any tier thinks."""
    lengths: Floats
    """Maps P(thought longer than the grid's points) to expected thinking tokens, [GRID, thinking]."""
    losses: Floats
    """Maps the same to how much less often a budget is right than the longest one, [GRID, thinking]."""
    budgets: Floats
    """Thinking tokens, [T]."""
    limit: Floats
    """Completion tokens that each tier may write, [T]."""

    @classmethod
    def of(cls, prior: Prior, tiers: Sequence[TierLength]) -> Self:
        """tiers: cheapest first."""
        budgets = np.array([max(tier.thinking, 0) for tier in tiers], float)
        thinking = np.flatnonzero(budgets > 0)
        lengths = np.array([_integral(budget) for budget in budgets[thinking]]).reshape(-1, len(_GRID)).T
        # a long thought, one standard deviation above the average: its rates are the more careful ones
        thought = prior.average.thought + math.pi / (math.sqrt(3) * prior.steepness)
        gained = prior.finished(prior.average.right) - prior.cut
        ended = gained * (1 - prior.unfinished(thought, np.log(np.maximum(budgets[thinking], 1))))
        rates = _falling(np.diff(ended), np.diff(prior.unfinished(thought, LN_GRID) @ lengths))
        steps = np.diff(lengths, axis=1) * rates
        losses = np.zeros_like(lengths)
        losses[:, :-1] = np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]
        return cls(
            prior=prior,
            thinking=tuple(thinking.tolist()),
            top=math.log(max(float(budgets.max()), 1.0)),
            lengths=lengths,
            losses=losses,
            budgets=budgets,
            limit=np.array([max(tier.thinking + tier.answer, 1) for tier in tiers], float),
        )

    def outcomes(self, seen: Readings) -> tuple[Floats, Floats]:
        """P(right) and E[completion tokens] for readings [...], each [..., T]."""
        prior = self.prior
        thought, answer, right = (np.asarray(part)[..., None] for part in seen)
        correct = np.broadcast_to(right, (*right.shape[:-1], len(self.budgets))).copy()
        tokens = np.broadcast_to(np.exp(answer), correct.shape).copy()
        if self.thinking:
            survival = prior.unfinished(thought, LN_GRID)
            full = prior.finished(right)
            longest = full - np.maximum(full - prior.cut, 0) * prior.unfinished(thought, self.top)
            correct[..., self.thinking] = longest - survival @ self.losses
            tokens[..., self.thinking] = survival @ self.lengths + prior.forced * np.exp(answer)
        return np.clip(correct, 0, 1), np.minimum(tokens, self.limit)

    def p95(self, seen: Readings) -> Floats:
        """95th percentile of the completion tokens for readings of one prompt, [T]."""
        prior = self.prior
        answer = math.exp(float(seen.answer) + _Z95 * prior.scatter)
        thought = math.exp(float(seen.thought) + math.log(_ODDS95) / prior.steepness)
        thinks = self.budgets > 0
        most = np.where(thinks, np.minimum(self.budgets, thought) + prior.forced * answer, answer)
        bounded: Floats = np.minimum(np.ceil(most), self.limit)
        return bounded

    def predict(self, counts: Singles | None) -> Prediction:
        """The estimates for one prompt, from its counts [DENSE]; for an average prompt without counts."""
        seen = self.prior.average if counts is None else self.prior.read(counts)
        correct, tokens = self.outcomes(seen)
        right = tuple(correct.tolist())
        p95 = tuple(self.p95(seen).tolist())
        return Prediction(1 - right[0], right, tuple(tokens.tolist()), p95, prior=True)


def _integral(budget: float) -> Floats:
    """Weights [GRID] with which P(longer than t) sums to E[min(length, budget)] = ∫ P(longer than t) dt.

    Trapezoids between the grid's points; below the first one, every thought goes on.
    """
    edges = np.minimum(_GRID, budget)
    widths = np.diff(edges)
    weights = np.zeros(len(_GRID))
    weights[:-1] += widths / 2
    weights[1:] += widths / 2
    weights[0] += edges[0]
    return weights


def _falling(gains: Floats, costs: Floats) -> Floats:
    """Gains per cost made non-increasing: the slopes of the concave hull (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for gain, cost in zip(gains.tolist(), np.maximum(costs, 1e-9).tolist(), strict=True):
        blocks.append((gain, cost, 1))
        while len(blocks) > 1 and blocks[-1][0] / blocks[-1][1] >= blocks[-2][0] / blocks[-2][1]:
            (a, b, n), (c, d, m) = blocks.pop(), blocks.pop()
            blocks.append((a + c, b + d, n + m))
    return np.array([gain / cost for gain, cost, count in blocks for _ in range(count)])
