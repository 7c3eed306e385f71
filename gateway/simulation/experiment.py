"""Runs each scenario with every controller, and with prices chosen in hindsight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.budget.pacing import PaceSettings
from gateway.simulation.controllers import Controller, Fixed, Paced, RawDual, Scheduled
from gateway.simulation.limiter import REFUSED, Limiter
from gateway.simulation.replay import Run, replay
from gateway.simulation.traffic import RATE, Scenario, Trace, draw_trace
from router_model.allocation import PriceTable, value
from router_model.arrays import Floats, Ints
from router_model.evaluation.methods import Estimates, Estimator, Method
from router_model.predictor import Prediction
from router_model.training.outcomes import FOLDS, OutcomeTable, folds

WINDOW = 60.0  # seconds
FRACTIONS = (0.86, 0.9, 0.94, 0.98)
"""Shares of the cap that hindsight plans for. Behind the limiter, the best one counts."""


@dataclass(frozen=True)
class World:
    """What all runs share: measured outcomes of N prompts, estimates for them, and the budget."""

    table: OutcomeTable
    estimates: Estimates
    """Cross-fitted."""
    predictions: list[Prediction]
    """The estimates in the form that the gateway uses."""
    prices: PriceTable
    best: Ints
    """The tier chosen at a price of 0, [N]."""
    reserves: Floats
    """Tokens that each tier reserves, [N, T]."""
    cap: float
    """Tokens per window."""

    @property
    def budget(self) -> float:
        """Tokens per request that the cap allows at the usual rate."""
        return self.cap / (WINDOW * RATE)


@dataclass(frozen=True)
class Score:
    """How one controller did."""

    seconds_over_cap: int
    utilisation: float
    """Mean share of the cap settled in the trailing window, over the seconds under load (see `loaded`)."""
    accuracy: float
    """Expected share of right answers; refused and lost requests count as wrong."""
    hindsight_accuracy: float
    """Of the best price per window, known in advance, under the same limiter and reservations."""
    relaxed_accuracy: float
    """Of that price without limiter and reservations. No budget that always holds can reach it."""
    limiter_share: float
    """Share of requests that the limiter shortened or refused."""
    rejected_share: float


def cross_fitted(table: OutcomeTable, method: Method, seed: int) -> Estimates:
    """Estimates for every prompt by a method that was fitted to other prompts only."""
    part = folds(table, FOLDS, seed)
    correct, tokens = np.zeros_like(table.correct), np.zeros_like(table.tokens)
    for fold in range(FOLDS):
        fitted = method.fit(table.take(part != fold), seed)
        if not isinstance(fitted, Estimator):
            raise TypeError(f"{method.name} does not estimate outcomes")
        correct[part == fold], tokens[part == fold] = fitted.estimate(table.take(part == fold))
    return Estimates(correct, np.maximum(tokens, 1.0))


def world(table: OutcomeTable, estimates: Estimates, clamps: Ints, *, share: float, strict: bool) -> World:
    """The world of a table and its estimates.

    share: the cap, as a share of what unpriced traffic would spend at the usual rate. strict: reserve the
    clamps. Otherwise a tier reserves the estimate times the 95th percentile of actual/estimate, at most the
    clamp.
    """
    correct, tokens = estimates
    predictions = [
        Prediction(0.0, tuple(p), tuple(c)) for p, c in zip(correct.tolist(), tokens.tolist(), strict=True)
    ]
    best = correct.argmax(axis=1)
    reserves = np.broadcast_to(clamps.astype(np.float64), tokens.shape)
    if not strict:
        reserves = np.minimum(np.ceil(tokens * np.quantile(table.tokens / tokens, 0.95, axis=0)), clamps)
    unpriced = float(tokens[np.arange(len(table)), best].mean())
    return World(
        table=table,
        estimates=estimates,
        predictions=predictions,
        prices=PriceTable.of((p.correct, p.tokens) for p in predictions),
        best=best,
        reserves=reserves,
        cap=float(round(share * unpriced * RATE * WINDOW)),
    )


def trailing(at: Floats, amounts: Floats, when: NDArray[Any]) -> Floats:
    """Sum of the amounts in the window that ends with each moment; `at` must rise."""
    total = np.concatenate([[0.0], np.cumsum(amounts)])
    newest, oldest = np.searchsorted(at, when, "right"), np.searchsorted(at, when - WINDOW, "right")
    return np.asarray(total[newest] - total[oldest])


def loaded(world: World, trace: Trace) -> Ints:
    """The seconds under load: those after the first window in which unpriced traffic would fill it."""
    ends = np.arange(WINDOW, trace.duration) + 1
    wanted = trace.tokens[np.arange(len(trace.at)), world.best[trace.row]]
    return ends[trailing(trace.at, wanted, ends) >= world.cap].astype(np.int64)


def accuracy(trace: Trace, run: Run) -> float:
    """Expected share of right answers; refused and lost requests count as wrong."""
    right = trace.correct[np.arange(len(trace.at)), np.maximum(run.granted, 0)]
    return float(np.where(run.granted >= 0, right, 0.0).mean())


def score_run(world: World, trace: Trace, run: Run, hindsight: float, relaxed: float) -> Score:
    """Score a run by exact times of settlement instead of the limiter's buckets."""
    ends = np.arange(trace.duration) + 1
    moments = np.concatenate([run.ended, ends])
    over = moments[trailing(run.ended, run.used, moments) > world.cap]
    busy = trailing(run.ended, run.used, loaded(world, trace))
    return Score(
        seconds_over_cap=len(np.unique(np.ceil(over))),
        utilisation=float(busy.mean() / world.cap) if len(busy) else 0.0,
        accuracy=accuracy(trace, run),
        hindsight_accuracy=hindsight,
        relaxed_accuracy=relaxed,
        limiter_share=run.window.limited / len(trace.at),
        rejected_share=float((run.granted == REFUSED).mean()),
    )


class Hindsight:
    """The best price for each window of a trace, given the tokens that each choice would really cost."""

    def __init__(self, world: World, trace: Trace) -> None:
        correct, tokens = world.estimates
        low, high = world.prices.floor, world.prices.ceiling
        self.prices = np.concatenate([[0.0], np.geomspace(max(low, high / 1e5), 1.01 * high, 200)])
        choices = np.stack([value(correct, tokens, price).argmax(axis=1) for price in self.prices])
        choices = choices.astype(np.int8)
        windows = np.split(np.arange(len(trace.at)), np.searchsorted(trace.at, self._starts(trace)))
        self._costs, self._right = [], []
        for index in windows:
            chosen = choices[:, trace.row[index]]
            self._costs.append(trace.tokens[index[None, :], chosen].sum(axis=1))
            self._right.append(trace.correct[index[None, :], chosen].sum(axis=1))
        self._cap, self._requests = world.cap, len(trace.at)

    @staticmethod
    def _starts(trace: Trace) -> Floats:
        return np.arange(WINDOW, trace.duration, WINDOW, dtype=np.float64)

    def plan(self, fraction: float = 1.0) -> tuple[list[float], float]:
        """The price per window that fills `fraction` of the cap, and the accuracy without a limiter."""
        at = [np.flatnonzero(cost <= fraction * self._cap) for cost in self._costs]
        chosen = [int(within[0]) if len(within) else -1 for within in at]
        right = sum(float(window[k]) for window, k in zip(self._right, chosen, strict=True))
        return [float(self.prices[k]) for k in chosen], right / self._requests


def controllers(world: World) -> dict[str, Callable[[], Controller]]:
    """Ours and its rivals, by name. The rivals' price fits the usual rate and the usual prompts."""
    price, budget = world.prices.price(world.budget), world.budget
    pacing = PaceSettings(WINDOW, largest=float(world.reserves.max()))
    return {
        "thinkmeter": lambda: Paced(0.0, limited=True, pacing=pacing, table=world.prices),
        "pacing without limiter": lambda: Paced(0.0, limited=False, pacing=pacing, table=world.prices),
        "fixed price": lambda: Fixed(price, limited=False),
        "fixed price, limiter": lambda: Fixed(price, limited=True),
        "limiter only": lambda: Fixed(0.0, limited=True),
        "raw dual": lambda: RawDual(price, limited=False, budget=budget),
        "raw dual, limiter": lambda: RawDual(price, limited=True, budget=budget),
    }


@dataclass(frozen=True)
class Result:
    """All runs of one scenario, by controller."""

    scenario: Scenario
    trace: Trace
    runs: dict[str, Run]
    scores: dict[str, Score]


def simulate(world: World, scenario: Scenario, seed: int) -> Result:
    """Run one scenario with every controller, and with hindsight behind the limiter."""
    trace = draw_trace(scenario, world.table, seed)
    hindsight = Hindsight(world, trace)

    def run(controller: Controller) -> Run:
        return replay(trace, world.predictions, world.reserves, controller, Limiter(WINDOW, world.cap))

    plans = [hindsight.plan(fraction)[0] for fraction in FRACTIONS]
    planned = [run(Scheduled(0.0, limited=True, prices=plan, stretch=WINDOW)) for plan in plans]
    best = max(planned, key=lambda candidate: accuracy(trace, candidate))
    runs = {name: run(make()) for name, make in controllers(world).items()} | {"hindsight price": best}
    bounds = accuracy(trace, best), hindsight.plan()[1]
    scores = {name: score_run(world, trace, finished, *bounds) for name, finished in runs.items()}
    return Result(scenario, trace, runs, scores)
