"""Replays synthetic traffic through the gateway's own price controller and policy, on the trace's clock."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gateway.routing.bounds import Bound, Bounds
from gateway.routing.policy import choose
from gateway.simulation.controllers import Arrival, Controller
from gateway.simulation.limiter import REFUSED, Limiter
from gateway.simulation.traffic import FIRST_TOKEN, SPEED, Trace
from router_model.arrays import Floats, Ints
from router_model.predictor import Prediction

LEASE = 30.0  # seconds; renewed every third of it, with a report of progress
LOST = -2
"""In place of a tier: the gateway died before the response ended."""


class Flight(NamedTuple):
    """A request in progress, ordered by its end."""

    ends: float
    request: int
    gateway: int
    tier: int
    tokens: float
    began: float


@dataclass(frozen=True)
class Run:
    """What happened to the N requests of a trace."""

    granted: Ints
    """The tier of each request, REFUSED or LOST, [N]."""
    prices: Floats
    """[N]"""
    ended: Floats
    """Seconds of every settlement, in order."""
    used: Floats
    """Tokens of every settlement."""
    seconds: Floats
    """(second, settled, reserved) of every second."""
    window: Limiter


class _Replay:
    """The state of one run."""

    def __init__(
        self,
        trace: Trace,
        predictions: Sequence[Prediction],
        reserves: Sequence[Sequence[float]],
        window: Limiter,
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

    def kill(self, now: float, gateway: int, controller: Controller) -> None:
        """A gateway dies: its requests count as reserved until their leases end, then as last reported."""
        self.land(now, controller)
        controller.restarted(gateway)
        for index, flight in enumerate(self.flights):
            if flight.gateway == gateway:
                renewed = math.floor((now - flight.began) / (LEASE / 3)) * LEASE / 3
                reported = max(math.floor((renewed - FIRST_TOKEN) * SPEED), 0)
                tokens = min(flight.tokens, float(reported)) if renewed else self._reserved(flight)
                ends = flight.began + renewed + LEASE
                self.flights[index] = flight._replace(ends=ends, gateway=-1, tokens=tokens)
                self.granted[flight.request] = LOST
        heapq.heapify(self.flights)

    def _reserved(self, flight: Flight) -> float:
        reserved: float = self.reserves[self.rows[flight.request]][flight.tier]
        return reserved


def replay(
    trace: Trace, predictions: Sequence[Prediction], reserves: Floats, controller: Controller, window: Limiter
) -> Run:
    """Run a trace. predictions and reserves (tokens, [rows, T]) belong to the rows of the outcome table."""
    run = _Replay(trace, predictions, reserves.tolist(), window)
    bounds = Bounds(ceiling=Bound(len(trace.clamps) - 1, "client_ceiling"))
    tokens, gateways = trace.tokens.tolist(), trace.gateway.tolist()
    restarts, prices = deque(trace.restarts), list[float]()
    seconds = list[tuple[float, float, float]]()
    for index, now in enumerate(trace.at.tolist()):
        while restarts and restarts[0][0] <= now:
            run.kill(*restarts.popleft(), controller)
        run.land(now, controller)
        row = run.rows[index]
        price = controller.price(Arrival(now, gateways[index], predictions[row]), window)
        wanted = choose(bounds, predictions[row], price).index
        tier = window.reserve(now, wanted, run.reserves[row], enforced=controller.limited)
        run.granted[index] = tier
        prices.append(price)
        if tier >= 0:
            used = tokens[index][tier]
            ends = now + FIRST_TOKEN + used / SPEED
            heapq.heappush(run.flights, Flight(ends, index, gateways[index], tier, used, now))
        if now >= len(seconds):
            seconds += [(now, window.settled, window.reserved)] * (math.floor(now) + 1 - len(seconds))
    run.land(math.inf, controller)
    ended, used_tokens = np.array(run.settlements).reshape(-1, 2).T
    return Run(run.granted, np.array(prices), ended, used_tokens, np.array(seconds), window)
