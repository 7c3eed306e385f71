"""What any difficulty model must answer: the contract between a head and the gateway."""

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
    """Estimates for one prompt; `correct`, `tokens` and `p95` run parallel to the tiers asked about.

    difficulty: 0 (trivial) to 1 (hopeless without thinking): 1 − P(right at the cheapest tier).
    correct: P(right answer | prompt, tier), each in [0, 1].
    tokens: E[completion tokens | prompt, tier], reasoning included.
    p95: 95 % of completions are no longer than this; empty where the predictor does not know.
    abstains: the prompt is too unlike the training data; the other fields are then the predictor's averages.
    """

    difficulty: float
    correct: tuple[float, ...]
    tokens: tuple[float, ...]
    p95: tuple[float, ...] = ()
    abstains: bool = False


class Predictor(Protocol):
    """Pure and synchronous: it runs on the event loop, so it must stay far below a millisecond."""

    @property
    def version(self) -> str:
        """Names the estimator in every decision record."""
        ...

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """Estimate for `tiers` of `model`, cheapest first."""
        ...

    def price_table(self, model: str, tiers: Sequence[TierLength]) -> PriceTable | None:
        """λ*(B) on the prompts the predictor was made from; None where it was made from none."""
        ...
