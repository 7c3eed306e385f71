"""Measure methods on outcome tables: cross-fitting, held-out data sets, oracles, points at a budget.

Prompts are never scored by a method that has seen them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router_model.allocation import UNIT
from router_model.arrays import Floats
from router_model.evaluation import cost_quality
from router_model.evaluation.cost_quality import Sweep
from router_model.evaluation.methods import Estimates, Estimator, Method, Uncalibrated
from router_model.evaluation.oracle import oracle
from router_model.training.outcomes import FOLDS, OutcomeTable, folds

LARGE = 600  # prompts from which a held-out fifth for each seed is enough to test on
_RELATIVE_PRICES = np.concatenate([[np.inf], np.geomspace(20, 0.005, 60), [0.0]])

Tick = Callable[[str], object]


class Cell(NamedTuple):
    """One method at one seed: its sweep, its predictions for `sweep.rows` where it makes any, CPU seconds
    a fit.
    """

    sweep: Sweep
    estimates: Estimates | None = None
    uncalibrated: Estimates | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """Methods on one table: cells by method, one a seed; `tiers` and `oracle` alike."""

    table: OutcomeTable
    setting: str
    cells: Mapping[str, Sequence[Cell]]
    tiers: Sequence[Sweep]
    oracle: Sequence[Sweep]
    oracle_kind: str


def relative_prices(table: OutcomeTable) -> Floats:
    """Prices for a method that cannot say where it changes its mind: from 20 to 0.005 for all of the extra
    budget.
    """
    means = table.tokens.mean(axis=0)
    found: Floats = _RELATIVE_PRICES * UNIT / max(float(means.max() - means.min()), 1e-9)
    return found


def parts(
    table: OutcomeTable, seed: int, count: int = FOLDS, *, every: bool = True
) -> Iterator[NDArray[np.bool_]]:
    """Masks of the rows to test on; the first only unless `every`."""
    fold = folds(table, count, seed)
    for part in range(count if every else 1):
        if 0 < (fold == part).sum() < len(table):
            yield fold == part


def cross_fit(
    method: Method, table: OutcomeTable, seed: int, tests: Iterable[NDArray[np.bool_]], tick: Tick
) -> Cell:
    """Fit outside each test part, predict inside; one price for all parts."""
    estimates, raw, tokens, correct, rows = [], [], [], [], []
    prices = relative_prices(table)
    seconds = 0.0
    for test in tests:
        started = time.process_time()
        fitted = method.fit(table.take(~test), seed)
        seconds += time.process_time() - started
        held_out = table.take(test)
        rows.append(np.flatnonzero(test))
        if isinstance(fitted, Estimator):
            estimates.append(fitted.estimate(held_out))
            if isinstance(fitted, Uncalibrated):
                raw.append(fitted.uncalibrated(held_out))
        else:
            chosen = np.stack([fitted.choose(held_out, price) for price in prices])
            tokens.append((chosen * held_out.tokens).sum(axis=2))
            correct.append((chosen * held_out.correct).sum(axis=2))
        tick(method.name)
    cell = _cell(table, np.concatenate(rows), estimates, raw, tokens, correct)
    return cell._replace(seconds=seconds / len(rows))


def _cell(  # noqa: PLR0917
    table: OutcomeTable,
    rows: NDArray[np.intp],
    estimates: list[Estimates],
    raw: list[Estimates],
    tokens: list[Floats],
    correct: list[Floats],
) -> Cell:
    truth = Estimates(table.correct[rows], table.tokens[rows])
    if estimates:
        joined = _joined(estimates)
        return Cell(cost_quality.sweep(joined, truth, rows), joined, _joined(raw) if raw else None)
    cheapest = truth.tokens.mean(axis=0).argmin()
    return Cell(
        Sweep(
            rows,
            np.concatenate([truth.tokens[:, cheapest][None], np.concatenate(tokens, axis=1)]),
            np.concatenate([truth.correct[:, cheapest][None], np.concatenate(correct, axis=1)]),
        )
    )


def _joined(estimates: Sequence[Estimates]) -> Estimates:
    return Estimates(
        np.concatenate([one.correct for one in estimates]), np.concatenate([one.tokens for one in estimates])
    )


def trial(
    table: OutcomeTable, methods: Sequence[Method], seeds: Sequence[int], tick: Tick, *, every: bool
) -> Trial:
    """Once for each seed: every method cross-validated over `every` fold, or fitted once with a fifth held
    out.
    """
    tests = {seed: list(parts(table, seed, every=every)) for seed in seeds}
    cells = {
        method.name: [cross_fit(method, table, seed, tests[seed], tick) for seed in seeds]
        for method in methods
    }
    setting = f"{FOLDS}-fold cross-validation" if every else "a fifth held out for each seed"
    return assemble(table, setting, cells, [np.any(tests[seed], axis=0) for seed in seeds])


def left_out(
    table: OutcomeTable, dataset: str, methods: Sequence[Method], seeds: Sequence[int], tick: Tick
) -> Trial:
    """Every method fitted to the other data sets of the table, measured on this one, once for each seed."""
    test = np.array([name == dataset for name in table.datasets])
    cells = {
        method.name: [cross_fit(method, table, seed, [test], tick) for seed in seeds] for method in methods
    }
    return assemble(table, "fitted to other tables or data sets", cells, [test for _ in seeds])


def within(whole: Trial, dataset: str) -> Trial:
    """The same decisions, measured on one data set against that data set's own mixes."""
    keep = np.array([name == dataset for name in whole.table.datasets])
    cells = {name: [_kept(cell, keep) for cell in of_method] for name, of_method in whole.cells.items()}
    tested = [np.isin(np.arange(len(keep)), tiers.rows) & keep for tiers in whole.tiers]
    return assemble(whole.table, f"within {dataset}", cells, tested)


def _kept(cell: Cell, keep: NDArray[np.bool_]) -> Cell:
    chosen = keep[cell.sweep.rows]

    def those(estimates: Estimates | None) -> Estimates | None:
        return estimates and Estimates(estimates.correct[chosen], estimates.tokens[chosen])

    return Cell(cell.sweep.within(keep), those(cell.estimates), those(cell.uncalibrated))


def assemble(
    table: OutcomeTable,
    setting: str,
    cells: Mapping[str, Sequence[Cell]],
    tested: Sequence[NDArray[np.bool_]],
) -> Trial:
    some = np.any(
        tested, axis=0
    )  # a table of the tested prompts alone decides which kind of oracle it can have
    best, kind = oracle(table.take(some))
    places = np.flatnonzero(some)
    whole = Sweep(places, best.tokens, best.correct)
    tiers = [
        cost_quality.fixed(table.correct[test], table.tokens[test], np.flatnonzero(test)) for test in tested
    ]
    return Trial(table, setting, cells, tiers, [whole.within(test) for test in tested], kind)
