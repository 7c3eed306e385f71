"""A run of made-up traffic through the gateway's own price and choice, on the clock of the trace."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.budget.pacing import Memory, PaceSettings, Reading, update_price
from gateway.routing.policy import Bound, Bounds, choose
from gateway.simulation.traffic import FIRST_TOKEN, SPEED, Trace
from router_model.allocation import PriceTable, RecentPrices
from router_model.arrays import Floats, Ints
from router_model.predictor import Prediction

BUCKETS = 60  # of a window
LEASE = 30.0  # seconds; renewed, with the progress, every third of it
REFUSED, LOST = -1, -2


class Window:
    """The limiter in plain Python, with the admission rule of the scripts in gateway/store/lua.

    Tokens count in the bucket in which they are settled, until the last bucket that may hold a part of the
    trailing window is over: at least the whole window, at most one bucket longer.
    """

    def __init__(self, seconds: float, cap: float) -> None:
        self.cap, self.settled, self.reserved = cap, 0.0, 0.0
        self.arrivals = self.limited = 0
        self.spent = self.expected = 0.0
        self.peak = 0.0
        self._width = seconds / BUCKETS
        self._buckets: deque[tuple[int, float]] = deque()

    def _expire(self, now: float) -> None:
        first = math.floor(now / self._width) - BUCKETS
        while self._buckets and self._buckets[0][0] < first:
            self.settled -= self._buckets.popleft()[1]

    def reserve(self, now: float, wanted: int, amounts: Sequence[float], *, enforced: bool) -> int:
        """The tier granted, at or below the wanted one; REFUSED where none fits. Not enforced: the wanted."""
        self._expire(now)
        self.arrivals += 1
        granted = wanted
        if enforced:
            room = self.cap - self.settled - self.reserved
            while granted >= 0 and amounts[granted] > room:
                granted -= 1
            self.limited += granted != wanted
        if granted < 0:
            return REFUSED
        self.reserved += amounts[granted]
        self.peak = max(self.peak, self.settled + self.reserved)
        return granted

    def settle(self, now: float, reserved: float, used: float, expected: float) -> None:
        """Replace a reservation by what was used."""
        self._expire(now)
        self.reserved -= reserved
        self.settled += used
        self.spent += used
        self.expected += expected
        self._buckets.append((math.floor(now / self._width), used))
        self.peak = max(self.peak, self.settled + self.reserved)

    def reading(self, now: float) -> Reading:
        """What pacing is told."""
        self._expire(now)
        return Reading(
            now,
            self.settled,
            self.reserved,
            self.cap,
            self.arrivals,
            self.limited,
            self.spent,
            self.expected,
        )


class Arrival(NamedTuple):
    """A request as it reaches a replica."""

    now: float
    replica: int
    prediction: Prediction


class Controller(Protocol):
    """Sets the price of each request; `limited` says whether the limiter stands behind it."""

    limited: bool

    def price(self, arrival: Arrival, window: Window) -> float:
        """For a request that arrives now."""
        ...

    def settled(self, tokens: float) -> None:
        """An answer has ended."""
        ...

    def restarted(self, replica: int) -> None:
        """This replica has forgotten all that it kept in memory."""
        ...


@dataclass
class Fixed:
    """One price for ever."""

    now: float
    limited: bool

    def price(self, arrival: Arrival, window: Window) -> float:  # noqa: ARG002
        """See `Controller.price`."""
        return self.now

    def settled(self, tokens: float) -> None:
        """See `Controller.settled`."""

    def restarted(self, replica: int) -> None:
        """See `Controller.restarted`."""


@dataclass
class RawDual(Fixed):
    """Dual descent on tokens a request, λ ← [λ + η·λ₀·(tokens/B − 1)]₊ (Balseiro and Gur 2019); no window."""

    budget: float = 1.0
    step: float = 0.05

    def __post_init__(self) -> None:
        self._unit = self.now

    def settled(self, tokens: float) -> None:
        """See `Controller.settled`."""
        self.now = max(self.now + self.step * self._unit * (tokens / self.budget - 1), 0.0)


@dataclass
class Scheduled(Fixed):
    """A price for each stretch of time, known beforehand."""

    prices: Sequence[float] = ()
    stretch: float = 1.0

    def price(self, arrival: Arrival, window: Window) -> float:  # noqa: ARG002
        """See `Controller.price`."""
        return self.prices[min(int(arrival.now / self.stretch), len(self.prices) - 1)]


@dataclass
class Paced(Fixed):
    """The gateway's pacing. Every replica looks once a tick; the memory is shared, the last price is not."""

    pacing: PaceSettings = field(kw_only=True)
    table: PriceTable = field(kw_only=True)

    def __post_init__(self) -> None:
        self._memory: Memory | None = None
        self._seen: dict[int, tuple[float, float]] = {}
        self._recent: dict[int, RecentPrices] = {}

    def price(self, arrival: Arrival, window: Window) -> float:
        """See `Controller.price`. A replica that has not looked yet takes the budget for idle."""
        now, replica, prediction = arrival
        recent = self._recent.setdefault(replica, RecentPrices(self.table))
        recent.add(prediction.correct, prediction.tokens)
        tick = self.pacing.window / 60
        looked, price = self._seen.get(replica, (-math.inf, self.table.floor))
        if now - looked < tick:
            return price
        paced = update_price(self.pacing, recent.table, self._memory, window.reading(now))
        if self._memory is None or paced.memory.at - self._memory.at >= tick:
            self._memory = paced.memory
        self._seen[replica] = (now, paced.price)
        return paced.price if looked > -math.inf else price

    def restarted(self, replica: int) -> None:
        """See `Controller.restarted`."""
        self._seen.pop(replica, None)
        self._recent.pop(replica, None)


class Flight(NamedTuple):
    """A request on its way; ordered by its end."""

    ends: float
    request: int
    replica: int
    tier: int
    tokens: float
    began: float


@dataclass(frozen=True)
class Run:
    """What happened. granted: tier of each request, REFUSED or LOST, [N]. prices: of each request, [N].

    ended, used: seconds and tokens of every settlement, in order. seconds: (second, settled, reserved) each.
    """

    granted: Ints
    prices: Floats
    ended: Floats
    used: Floats
    seconds: NDArray[np.float64]
    window: Window


class _Replay:
    """The state of one run."""

    def __init__(
        self,
        trace: Trace,
        predictions: Sequence[Prediction],
        reserves: Sequence[Sequence[float]],
        window: Window,
    ) -> None:
        self.trace, self.predictions, self.reserves, self.window = trace, predictions, reserves, window
        self.rows = trace.row.tolist()
        self.flights: list[Flight] = []
        self.settlements: list[tuple[float, float]] = []
        self.granted = np.full(len(trace.at), REFUSED)

    def land(self, until: float, controller: Controller) -> None:
        while self.flights and self.flights[0].ends <= until:
            flight = heapq.heappop(self.flights)
            row = self.rows[flight.request]
            self.window.settle(
                flight.ends,
                self.reserves[row][flight.tier],
                flight.tokens,
                self.predictions[row].tokens[flight.tier],
            )
            self.settlements.append((flight.ends, flight.tokens))
            controller.settled(flight.tokens)

    def kill(self, now: float, replica: int, controller: Controller) -> None:
        """A replica dies: what it served counts as reserved until its leases end, then as last reported."""
        self.land(now, controller)
        controller.restarted(replica)
        for at, flight in enumerate(self.flights):
            if flight.replica == replica:
                renewed = math.floor((now - flight.began) / (LEASE / 3)) * LEASE / 3
                reported = max(math.floor((renewed - FIRST_TOKEN) * SPEED), 0)
                tokens = min(flight.tokens, float(reported)) if renewed else self._reserved(flight)
                ends = flight.began + renewed + LEASE
                self.flights[at] = flight._replace(ends=ends, replica=-1, tokens=tokens)
                self.granted[flight.request] = LOST
        heapq.heapify(self.flights)

    def _reserved(self, flight: Flight) -> float:
        reserved: float = self.reserves[self.rows[flight.request]][flight.tier]
        return reserved


def replay(
    trace: Trace, predictions: Sequence[Prediction], reserves: Floats, controller: Controller, window: Window
) -> Run:
    """Run a trace. predictions and reserves (tokens, [rows, T]) are those of the outcome table's rows."""
    run = _Replay(trace, predictions, reserves.tolist(), window)
    bounds = Bounds(ceiling=Bound(len(trace.clamps) - 1, "client_ceiling"))
    tokens, replicas = trace.tokens.tolist(), trace.replica.tolist()
    restarts, prices = deque(trace.restarts), list[float]()
    seconds = list[tuple[float, float, float]]()
    for index, now in enumerate(trace.at.tolist()):
        while restarts and restarts[0][0] <= now:
            run.kill(*restarts.popleft(), controller)
        run.land(now, controller)
        row = run.rows[index]
        price = controller.price(Arrival(now, replicas[index], predictions[row]), window)
        wanted = choose(bounds, predictions[row], price).index
        tier = window.reserve(now, wanted, run.reserves[row], enforced=controller.limited)
        run.granted[index] = tier
        prices.append(price)
        if tier >= 0:
            used = tokens[index][tier]
            ends = now + FIRST_TOKEN + used / SPEED
            heapq.heappush(run.flights, Flight(ends, index, replicas[index], tier, used, now))
        if now >= len(seconds):
            seconds += [(now, window.settled, window.reserved)] * (math.floor(now) + 1 - len(seconds))
    run.land(math.inf, controller)
    ended, used_tokens = np.array(run.settlements).reshape(-1, 2).T
    return Run(run.granted, np.array(prices), ended, used_tokens, np.array(seconds), window)
