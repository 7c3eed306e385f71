"""The protocols of methods: a method is fitted to outcomes and then estimates or chooses."""

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
    """A fitted method that predicts outcomes; a price then decides."""

    def estimate(self, table: OutcomeTable) -> Estimates:
        """Estimates for the prompts of a table. The method must not look at its outcomes."""
        ...


@runtime_checkable
class Uncalibrated(Protocol):
    """An estimator that also gives its estimates before calibration."""

    def uncalibrated(self, table: OutcomeTable) -> Estimates:
        """Like `Estimator.estimate`, without corrections."""
        ...


class Chooser(Protocol):
    """A fitted method that decides for itself at a given price."""

    def choose(self, table: OutcomeTable, price: float) -> Floats:
        """Probability of each tier, [N, T]. The price is in P(right) per 1,000 tokens, from 0 to infinity."""
        ...


class Method(Protocol):
    """A way to route that can be fitted to outcomes."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        ...

    def fit(self, train: OutcomeTable, seed: int) -> Estimator | Chooser:
        """Fit to a table; deterministic given the seed."""
        ...
