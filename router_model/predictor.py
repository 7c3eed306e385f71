"""The contract between a difficulty model and the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from router_model.allocation import PriceTable


class TierLength(NamedTuple):
    """One tier of a model as a predictor sees it; lengths in tokens."""

    name: str
    thinking: int
    answer: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """Estimates for one prompt. `correct`, `tokens` and `p95` have one entry per tier asked about."""

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


class Predictor(Protocol):
    """Pure and synchronous. It runs on the event loop, so it must stay far below a millisecond."""

    @property
    def version(self) -> str:
        """Names the estimator in every decision record."""
        ...

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """Estimates for `tiers` of `model`, cheapest first."""
        ...

    def price_table(self, model: str, tiers: Sequence[TierLength]) -> PriceTable | None:
        """λ*(B) on the prompts the predictor was trained on; None if there were none."""
        ...
