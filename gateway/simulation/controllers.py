"""Price controllers: the gateway's own, and its rivals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.budget.pacing import Memory, PaceSettings, update_price
from gateway.simulation.limiter import Limiter
from router_model.allocation import PriceTable, RecentPrices, RequestEstimates
from router_model.predictor import Prediction


class Arrival(NamedTuple):
    """A request that reaches a gateway."""

    now: float
    gateway: int
    prediction: Prediction


class Controller(Protocol):
    """Sets the price of each request."""

    limited: bool
    """Whether the limiter is enforced behind it."""

    def price(self, arrival: Arrival, window: Limiter) -> float:
        """The price for a request that arrives now."""
        ...

    def settled(self, tokens: float) -> None:
        """A response has ended with this many tokens."""
        ...

    def restarted(self, gateway: int) -> None:
        """This gateway has lost everything it kept in memory."""
        ...


@dataclass
class Fixed:
    """A constant price."""

    now: float
    limited: bool

    def price(self, arrival: Arrival, window: Limiter) -> float:  # noqa: ARG002
        """See `Controller.price`."""
        return self.now

    def settled(self, tokens: float) -> None:
        """See `Controller.settled`."""

    def restarted(self, gateway: int) -> None:
        """See `Controller.restarted`."""


@dataclass
class RawDual(Fixed):
    """Dual descent on tokens per request, λ ← [λ + η·λ₀·(tokens/B − 1)]₊ (Balseiro and Gur 2019)."""

    budget: float = 1.0
    step: float = 0.05

    def __post_init__(self) -> None:
        self._unit = self.now

    def settled(self, tokens: float) -> None:
        """See `Controller.settled`."""
        self.now = max(self.now + self.step * self._unit * (tokens / self.budget - 1), 0.0)


@dataclass
class Scheduled(Fixed):
    """A price for each stretch of time, known in advance."""

    prices: Sequence[float] = ()
    stretch: float = 1.0

    def price(self, arrival: Arrival, window: Limiter) -> float:  # noqa: ARG002
        """See `Controller.price`."""
        return self.prices[min(int(arrival.now / self.stretch), len(self.prices) - 1)]


@dataclass
class Paced(Fixed):
    """The real controller. Each gateway reads once per tick; they share the memory, not the last price."""

    pacing: PaceSettings = field(kw_only=True)
    table: PriceTable = field(kw_only=True)

    def __post_init__(self) -> None:
        self._memory: Memory | None = None
        self._seen: dict[int, tuple[float, float]] = {}
        self._recent: dict[int, RecentPrices] = {}

    def price(self, arrival: Arrival, window: Limiter) -> float:
        """See `Controller.price`. A gateway without a reading assumes that the budget is idle."""
        now, gateway, prediction = arrival
        recent = self._recent.setdefault(gateway, RecentPrices(self.table))
        recent.add(RequestEstimates(prediction.correct, prediction.tokens))
        tick = self.pacing.window / 60
        looked, price = self._seen.get(gateway, (-math.inf, self.table.floor))
        if now - looked < tick:
            return price
        paced = update_price(self.pacing, recent.table, self._memory, window.reading(now))
        if self._memory is None or paced.memory.at - self._memory.at >= tick:
            self._memory = paced.memory
        self._seen[gateway] = (now, paced.price)
        return paced.price if looked > -math.inf else price

    def restarted(self, gateway: int) -> None:
        """See `Controller.restarted`."""
        self._seen.pop(gateway, None)
        self._recent.pop(gateway, None)
