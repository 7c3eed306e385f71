"""Synthetic traffic over measured outcomes: arrivals, prompts and response lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_model.arrays import Floats, Ints
from router_model.training.outcomes import OutcomeTable

RATE = 20.0  # requests per second while nothing special happens
DURATION = 1200.0  # seconds
SPREAD = 0.25  # standard deviation of ln tokens between responses to one prompt at one tier
FIRST_TOKEN, SPEED = 0.2, 100.0  # seconds until the first token, then tokens per second
GATEWAYS = 2


@dataclass(frozen=True)
class Trace:
    """N requests in the order of arrival, and what would happen to them at each of T tiers."""

    name: str
    at: Floats
    """Seconds from the start, [N]."""
    row: Ints
    """The prompt's row in the outcome table, [N]."""
    correct: Floats
    """Expected share of right answers, [N, T]."""
    tokens: Floats
    """Completion tokens, whole numbers, [N, T]."""
    clamps: Ints
    """The most tokens that a tier may use and reserves, [T]."""
    gateway: Ints
    """Which gateway serves the request, [N]."""
    duration: float
    """Seconds."""
    restarts: tuple[tuple[float, int], ...] = ()
    """(second, gateway) at which a gateway dies and comes back."""


@dataclass(frozen=True)
class Scenario:
    """What changes during a run: arrivals per second, share of hard prompts, length of responses."""

    name: str
    rate: Callable[[Floats], Floats] = lambda at: np.full_like(at, RATE)
    hard: Callable[[Floats], Floats] = lambda at: np.full_like(at, 0.5)
    length: Callable[[Floats], Floats] = np.ones_like
    restarts: tuple[tuple[float, int], ...] = ()


def _third(at: Floats) -> NDArray[np.bool_]:
    """The middle third of the run."""
    return (at >= DURATION / 3) & (at < 2 * DURATION / 3)


SCENARIOS = (
    Scenario("stationary"),
    Scenario("surge", rate=lambda at: np.where(_third(at), 3 * RATE, RATE)),
    Scenario("difficulty", hard=lambda at: np.where(at < DURATION / 2, 0.5, 0.9)),
    Scenario("inflation", length=lambda at: np.where(at < DURATION / 3, 1.0, 1.6)),
    Scenario("diurnal", rate=lambda at: RATE * (1 - 0.8 * np.cos(2 * np.pi * at / DURATION))),
    Scenario("restart", restarts=tuple((DURATION * k / 5, k % GATEWAYS) for k in range(1, 5))),
)


def clamps(table: OutcomeTable) -> Ints:
    """The most tokens each tier may use: 1.6 times its longest mean, so that growth by 60 % is rarely cut."""
    return np.asarray(np.ceil(1.6 * table.tokens.max(axis=0)), np.int64)


def draw_trace(scenario: Scenario, table: OutcomeTable, seed: int) -> Trace:
    """Draw a trace: Poisson arrivals, random prompts, log-normal lengths around the measured means.

    Hard prompts are those below the median of correctness over all tiers.
    """
    rng = np.random.default_rng(seed)
    seconds: Floats = np.arange(0.0, DURATION, 0.1, dtype=np.float64)
    counts = rng.poisson(scenario.rate(seconds) * 0.1)
    at = np.sort(np.repeat(seconds, counts) + rng.uniform(0, 0.1, counts.sum()))
    order = np.argsort(table.correct.mean(axis=1), kind="stable")
    hard, easy = np.array_split(order, 2)
    row = np.where(
        rng.random(len(at)) < scenario.hard(at),
        rng.choice(hard, len(at)),
        rng.choice(easy, len(at)),
    )
    spread = np.exp(rng.normal(-(SPREAD**2) / 2, SPREAD, len(at)))
    most, drawn = clamps(table), np.ceil(table.tokens[row] * (spread * scenario.length(at))[:, None])
    return Trace(
        name=scenario.name,
        at=at,
        row=row,
        correct=table.correct[row],
        tokens=np.clip(drawn, 1, most),
        clamps=most,
        gateway=rng.integers(GATEWAYS, size=len(at)),
        duration=DURATION,
        restarts=scenario.restarts,
    )
