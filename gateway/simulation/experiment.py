"""One scenario, every controller: how the pacing keeps a budget beside its rivals and beside hindsight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.budget.pacing import PaceSettings
from gateway.simulation.replay import (
    REFUSED,
    Controller,
    Fixed,
    Paced,
    RawDual,
    Run,
    Scheduled,
    Window,
    replay,
)
from gateway.simulation.traffic import RATE, Scenario, Trace, trace
from router_model.allocation import PriceTable, value
from router_model.arrays import Floats, Ints
from router_model.evaluation.methods import Estimates, Estimator, Method
from router_model.predictor import Prediction
from router_model.training.outcomes import FOLDS, OutcomeTable, folds

WINDOW = 60.0  # seconds
FRACTIONS = (0.86, 0.9, 0.94, 0.98)
"""Shares of the cap that hindsight plans for; the best one stands for it behind the limiter."""


@dataclass(frozen=True)
class World:
    """What all runs share: outcomes, what a head that never saw a prompt says of it, and the budget.

    best: the tier a price of 0 chooses, [N]. reserves: tokens, [N, T]. cap: tokens in a window.
    """

    table: OutcomeTable
    estimates: Estimates
    predictions: list[Prediction]
    prices: PriceTable
    best: Ints
    reserves: Floats
    cap: float

    @property
    def budget(self) -> float:
        """Tokens a request that the cap leaves at the usual rate."""
        return self.cap / (WINDOW * RATE)


@dataclass(frozen=True)
class Score:
    """How one controller did.

    utilisation: mean share of the cap settled in the trailing window, over the seconds under load (those in
    which unpriced traffic would have filled the window). accuracy: expected right answers of all requests;
    refused and lost ones count as wrong. hindsight_accuracy: of the price that is best for each window known
    beforehand, under the same limiter and reservations; relaxed_accuracy: of that price without either, which
    no budget that holds at every moment can reach.
    """

    seconds_over_cap: int
    utilisation: float
    accuracy: float
    hindsight_accuracy: float
    relaxed_accuracy: float
    limiter_share: float
    rejected_share: float


def cross_fitted(table: OutcomeTable, method: Method, seed: int) -> Estimates:
    """Estimates for every prompt by a head fitted to other prompts only."""
    part = folds(table, FOLDS, seed)
    correct, tokens = np.zeros_like(table.correct), np.zeros_like(table.tokens)
    for fold in range(FOLDS):
        fitted = method.fit(table.take(part != fold), seed)
        if not isinstance(fitted, Estimator):
            raise TypeError(f"{method.name} does not estimate outcomes")
        correct[part == fold], tokens[part == fold] = fitted.estimate(table.take(part == fold))
    return Estimates(correct, np.maximum(tokens, 1.0))


def world(table: OutcomeTable, estimates: Estimates, clamps: Ints, *, share: float, strict: bool) -> World:
    """share: the cap, as a share of what unpriced traffic would spend at the usual rate.

    Strict reservations are the clamps; else the estimate times the 95th percentile of the tier's
    actual/estimate, at most the clamp.
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
    """Sum of the amounts in the window up to and including each moment; `at` must rise."""
    total = np.concatenate([[0.0], np.cumsum(amounts)])
    newest, oldest = np.searchsorted(at, when, "right"), np.searchsorted(at, when - WINDOW, "right")
    return np.asarray(total[newest] - total[oldest])


def loaded(world: World, run_of: Trace) -> Ints:
    """The whole seconds, after the first window, in which unpriced traffic would have filled the window."""
    ends = np.arange(WINDOW, run_of.duration) + 1
    wanted = run_of.tokens[np.arange(len(run_of.at)), world.best[run_of.row]]
    return ends[trailing(run_of.at, wanted, ends) >= world.cap].astype(np.int64)


def accuracy(run_of: Trace, run: Run) -> float:
    """Share of right answers expected of all requests; refused and lost ones count as wrong."""
    right = run_of.correct[np.arange(len(run_of.at)), np.maximum(run.granted, 0)]
    return float(np.where(run.granted >= 0, right, 0.0).mean())


def score(world: World, run_of: Trace, run: Run, hindsight: float, relaxed: float) -> Score:
    """Judge a run by what was settled, at the exact moments, not by the limiter's own buckets."""
    ends = np.arange(run_of.duration) + 1
    moments = np.concatenate([run.ended, ends])
    over = moments[trailing(run.ended, run.used, moments) > world.cap]
    busy = trailing(run.ended, run.used, loaded(world, run_of))
    return Score(
        seconds_over_cap=len(np.unique(np.ceil(over))),
        utilisation=float(busy.mean() / world.cap) if len(busy) else 0.0,
        accuracy=accuracy(run_of, run),
        hindsight_accuracy=hindsight,
        relaxed_accuracy=relaxed,
        limiter_share=run.window.limited / len(run_of.at),
        rejected_share=float((run.granted == REFUSED).mean()),
    )


class Hindsight:
    """The best price for each window of a trace, found with the tokens that each choice would really cost."""

    def __init__(self, world: World, run_of: Trace) -> None:
        correct, tokens = world.estimates
        low, high = world.prices.floor, world.prices.ceiling
        self.prices = np.concatenate([[0.0], np.geomspace(max(low, high / 1e5), 1.01 * high, 200)])
        choices = np.stack([value(correct, tokens, price).argmax(axis=1) for price in self.prices])
        choices = choices.astype(np.int8)
        windows = np.split(np.arange(len(run_of.at)), np.searchsorted(run_of.at, self._starts(run_of)))
        self._costs, self._right = [], []
        for index in windows:
            chosen = choices[:, run_of.row[index]]
            self._costs.append(run_of.tokens[index[None, :], chosen].sum(axis=1))
            self._right.append(run_of.correct[index[None, :], chosen].sum(axis=1))
        self._cap, self._requests = world.cap, len(run_of.at)

    @staticmethod
    def _starts(run_of: Trace) -> Floats:
        return np.arange(WINDOW, run_of.duration, WINDOW, dtype=np.float64)

    def plan(self, fraction: float = 1.0) -> tuple[list[float], float]:
        """The price of each window that fills `fraction` of the cap, and the accuracy without any limiter."""
        at = [np.flatnonzero(cost <= fraction * self._cap) for cost in self._costs]
        chosen = [int(within[0]) if len(within) else -1 for within in at]
        right = sum(float(window[k]) for window, k in zip(self._right, chosen, strict=True))
        return [float(self.prices[k]) for k in chosen], right / self._requests


def controllers(world: World) -> dict[str, Callable[[], Controller]]:
    """Ours and its rivals, by name; the rivals' price is right for the usual rate and the usual prompts."""
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
    run_of = trace(scenario, world.table, seed)
    hindsight = Hindsight(world, run_of)

    def run(controller: Controller) -> Run:
        return replay(run_of, world.predictions, world.reserves, controller, Window(WINDOW, world.cap))

    plans = [hindsight.plan(fraction)[0] for fraction in FRACTIONS]
    planned = [run(Scheduled(0.0, limited=True, prices=plan, stretch=WINDOW)) for plan in plans]
    best = max(planned, key=lambda one: accuracy(run_of, one))
    runs = {name: run(make()) for name, make in controllers(world).items()} | {"hindsight price": best}
    bounds = accuracy(run_of, best), hindsight.plan()[1]
    scores = {name: score(world, run_of, one, *bounds) for name, one in runs.items()}
    return Result(scenario, run_of, runs, scores)
