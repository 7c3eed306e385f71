"""What a method is to an experiment: something that is fitted to outcomes, and then estimates or chooses."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from router_model.arrays import Floats
from router_model.training.outcomes import OutcomeTable


class Estimates(NamedTuple):
    """P(right) and E[completion tokens], each [N, T]."""

    correct: Floats
    tokens: Floats


@runtime_checkable
class Estimator(Protocol):
    """A fitted method that predicts outcomes; prices decide."""

    def estimate(self, table: OutcomeTable) -> Estimates:
        """For the prompts of a table, whose outcomes it must not look at."""
        ...


@runtime_checkable
class Uncalibrated(Protocol):
    """An estimator that can also be asked for its estimates before calibration."""

    def uncalibrated(self, table: OutcomeTable) -> Estimates:
        """As `Estimator.estimate`, without the corrections."""
        ...


class Chooser(Protocol):
    """A fitted method that decides by itself, given a price."""

    def choose(self, table: OutcomeTable, price: float) -> Floats:
        """Probability of each tier, [N, T]; price in P(right) per 1,000 tokens, from 0 to infinity."""
        ...


class Method(Protocol):
    """Anything that can be fitted to outcomes."""

    @property
    def name(self) -> str:
        """As it stands in reports."""
        ...

    def fit(self, train: OutcomeTable, seed: int) -> Estimator | Chooser:
        """Learn; deterministic given the seed."""
        ...
