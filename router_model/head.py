"""What the gateway asks of any difficulty model: the interface, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class TierLength(NamedTuple):
    """One tier of a model as a predictor sees it; lengths in tokens."""

    name: str
    thinking: int
    answer: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """Estimates for one prompt; `correct` and `tokens` run parallel to the tiers asked about.

    difficulty: 0 (trivial) to 1 (hopeless without thinking).
    correct: P(right answer | prompt, tier), each in [0, 1].
    tokens: E[completion tokens | prompt, tier], reasoning included.
    """

    difficulty: float
    correct: tuple[float, ...]
    tokens: tuple[float, ...]


class Predictor(Protocol):
    """Pure and synchronous: it runs on the event loop, so it must stay far below a millisecond."""

    @property
    def version(self) -> str:
        """Names the estimator in every decision record."""
        ...

    def predict(self, prompt: str, model: str, tiers: Sequence[TierLength]) -> Prediction:
        """Estimate for `tiers` of `model`, cheapest first."""
        ...
