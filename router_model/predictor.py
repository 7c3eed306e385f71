"""The contract between a difficulty model and the gateway."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

import numpy as np

from router_model.allocation import PriceTable
from router_model.arrays import Floats

_NO_GAIN = 1 / 4
"""Share of the shortest thinking tier's tokens up to which thinking gains nothing."""


class TierLength(NamedTuple):
    """One rung of a model's ladder as a predictor sees it; lengths in tokens."""

    name: str | None
    """The name of the tier; None for a rung between two named tiers."""
    thinking: int
    answer: int


class Prediction(NamedTuple):
    """Estimates for one prompt. `correct`, `tokens` and `p95` have one entry per rung asked about."""

    difficulty: float
    """0 (trivial) to 1 (hopeless without thinking): 1 − P(right at the cheapest tier)."""

    correct: tuple[float, ...]
    """P(right answer | prompt, tier), each in [0, 1]."""

    tokens: tuple[float, ...]
    """E[completion tokens | prompt, tier], reasoning included."""

    p95: tuple[float, ...] = ()
    """95th percentile of completion tokens; empty if unknown."""

    abstains: bool = False
    """The prompt is unlike the training data. Its length then decides more than its words."""

    prior: bool = False
    """The model was never measured. The other fields then hold for reasoning models in general."""


PromptEstimator = Callable[[str], Prediction]
"""The estimates for one model and ladder, from a prompt."""


class Evidence(NamedTuple):
    """What the estimates for a model rest on."""

    stage: Literal["prior", "mixed", "measured"]
    """The prior alone, few own outcomes beside the prior, or own outcomes."""
    prompts: int
    """Number of prompts that the model was measured on."""
    prior_share: float
    """Weight of the prior in the estimates, in [0, 1]."""


class Predictor(Protocol):
    """Pure and synchronous. It runs on the event loop, so it must stay far below a millisecond."""

    @property
    def version(self) -> str:
        """Names the estimator in every decision record."""
        ...

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """Estimates for the rungs `tiers` of `model`, cheapest first. The first and the last have a name."""
        ...

    def price_table(self, model: str, tiers: Sequence[TierLength]) -> PriceTable | None:
        """λ*(B) on the prompts the predictor was trained on; None if there were none."""
        ...


def shortest_thinking(thinking: Iterable[float]) -> float:
    """The fewest thinking tokens that are not zero; 0 if none are."""
    return min((tokens for tokens in thinking if tokens > 0), default=0.0)


def gain_position(thinking: Floats, shortest: float) -> Floats:
    """Where thinking budgets stand on the scale on which P(right) is interpolated, [N].

    It is ln(1 + thinking), but from 0 up to a quarter of the shortest thinking tier nothing is gained: a
    thought that is cut off at its beginning helps no more than none.
    """
    position: Floats = np.log1p(np.maximum(thinking, shortest * _NO_GAIN))
    return position


def ranks(tiers: Sequence[TierLength]) -> tuple[float, ...]:
    """The position of every rung among the named tiers: 0 for the first tier, 1 for the second.

    A rung between two named tiers stands between their ranks, linear in its `gain_position`.
    """
    thinking = [float(tier.thinking) for tier in tiers]
    named = [at for at, tier in enumerate(tiers) if tier.name is not None]
    shortest = shortest_thinking(thinking[at] for at in named)
    places = gain_position(np.array(thinking), shortest).tolist()
    found = [float(named.index(at)) if at in named else math.nan for at in range(len(tiers))]
    for rank, (low, high) in enumerate(pairwise(named)):
        for at in range(low + 1, high):
            found[at] = rank + (places[at] - places[low]) / (places[high] - places[low])
    return tuple(found)
