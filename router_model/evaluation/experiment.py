"""Measures methods on outcome tables by cross-fitting, on held-out prompts or held-out data sets.

No prompt is ever scored by a method that was fitted to it.
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
from router_model.evaluation.cost_quality import Decisions, Sweep
from router_model.evaluation.methods import Estimates, Estimator, Method, Uncalibrated
from router_model.evaluation.oracle import oracle
from router_model.training.outcomes import FOLDS, OutcomeError, OutcomeTable, folds

LARGE = 600  # number of prompts above which a held-out fifth per seed is enough to test on
_RELATIVE_PRICES = np.concatenate([[np.inf], np.geomspace(20, 0.005, 60), [0.0]])

FitCallback = Callable[[str], object]
"""Called after each fit with the name of the method."""


class Cell(NamedTuple):
    """One method at one seed."""

    sweep: Sweep
    estimates: Estimates | None = None
    """For the prompts `sweep.rows`; None if the method makes no estimates."""
    uncalibrated: Estimates | None = None
    seconds: float = 0.0
    """CPU time per fit."""
    decisions: Decisions | None = None
    """For the prompts `sweep.rows`; None if they are not known."""


@dataclass(frozen=True)
class Comparison:
    """Several methods on one table."""

    table: OutcomeTable
    setting: str
    cells: Mapping[str, Sequence[Cell]]
    """By method, one per seed."""
    tiers: Sequence[Sweep]
    """The fixed tiers, one per seed."""
    oracle: Sequence[Sweep]
    """One per seed."""
    oracle_kind: str
    """See `oracle.oracle`."""


def relative_prices(table: OutcomeTable) -> Floats:
    """Prices for methods that cannot say where their decisions change: 20 to 0.005 per whole extra budget."""
    means = table.tokens.mean(axis=0)
    prices: Floats = _RELATIVE_PRICES * UNIT / max(float(means.max() - means.min()), 1e-9)
    return prices


def parts(
    table: OutcomeTable, seed: int, count: int = FOLDS, *, every: bool = True
) -> Iterator[NDArray[np.bool_]]:
    """Masks of the rows to test on; only the first one unless `every`."""
    fold = folds(table, count, seed)
    for part in range(count if every else 1):
        if 0 < (fold == part).sum() < len(table):
            yield fold == part


def cross_fit(
    method: Method, table: OutcomeTable, seed: int, tests: Iterable[NDArray[np.bool_]], tick: FitCallback
) -> Cell:
    """Fit outside of each test part and predict inside of it, at the same prices for all parts."""
    estimates, raw, shares, rows = [], [], [], []
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
            shares.append(np.stack([fitted.choose(held_out, price) for price in prices]))
        tick(method.name)
    cell = _cell(table, np.concatenate(rows), estimates, raw, shares)
    return cell._replace(seconds=seconds / len(rows))


def _cell(
    table: OutcomeTable,
    rows: NDArray[np.intp],
    estimates: list[Estimates],
    raw: list[Estimates],
    shares: list[Floats],
) -> Cell:
    truth = Estimates(table.correct[rows], table.tokens[rows])
    if estimates:
        joined = _joined(estimates)
        decisions = cost_quality.decide(joined, truth, rows)
        before = _joined(raw) if raw else None
        return Cell(decisions.scored(truth), joined, before, decisions=decisions)
    cheapest = np.zeros((1, *truth.tokens.shape))
    cheapest[..., truth.tokens.mean(axis=0).argmin()] = 1.0
    every = np.concatenate([cheapest, np.concatenate(shares, axis=1)])
    decisions = Decisions(rows, every.astype(np.float32))
    return Cell(decisions.scored(truth), decisions=decisions)


def _joined(estimates: Sequence[Estimates]) -> Estimates:
    correct, tokens = zip(*estimates, strict=True)
    return Estimates(np.concatenate(correct), np.concatenate(tokens))


def compare(
    table: OutcomeTable, methods: Sequence[Method], seeds: Sequence[int], tick: FitCallback, *, every: bool
) -> Comparison:
    """Measure every method once per seed.

    every: cross-validate over every fold. Otherwise fit once and hold out a fifth.
    """
    tests = {seed: list(parts(table, seed, every=every)) for seed in seeds}
    cells = {
        method.name: [cross_fit(method, table, seed, tests[seed], tick) for seed in seeds]
        for method in methods
    }
    setting = f"{FOLDS}-fold cross-validation" if every else "a fifth held out for each seed"
    return assemble(table, setting, cells, [np.any(tests[seed], axis=0) for seed in seeds])


def left_out(
    table: OutcomeTable, dataset: str, methods: Sequence[Method], seeds: Sequence[int], tick: FitCallback
) -> Comparison:
    """Fit every method to the other data sets of the table and measure it on this one, once per seed."""
    test = np.array([name == dataset for name in table.datasets])
    cells = {
        method.name: [cross_fit(method, table, seed, [test], tick) for seed in seeds] for method in methods
    }
    return assemble(table, "fitted to other tables or data sets", cells, [test for _ in seeds])


def left_out_groups(
    table: OutcomeTable,
    groups: Sequence[str],
    methods: Sequence[Method],
    seeds: Sequence[int],
    tick: FitCallback,
) -> Comparison:
    """Measure every prompt with methods that were fitted to the other groups of prompts only.

    groups: the group of each prompt, [N]. This shows what a method is worth on kinds of prompts that it never
    saw, where cross-validation over single prompts shows how well it recognises the kinds that it knows. Each
    group is decided by another fit, and is therefore measured at shares of its own budget, see `at_shares`.

    Raises: OutcomeError, unless there are two groups.
    """
    named = np.array(groups)
    if len(named) != len(table):
        raise OutcomeError(f"{table.name}: {len(named)} groups for {len(table)} prompts")
    tests = [named == group for group in np.unique(named)]
    if len(tests) < 2:
        raise OutcomeError(f"{table.name}: leaving groups of prompts out needs at least two groups")
    cells = {
        method.name: [
            _joined_parts(table, [cross_fit(method, table, seed, [test], tick) for test in tests])
            for seed in seeds
        ]
        for method in methods
    }
    everything = np.ones(len(table), np.bool_)
    setting = f"{len(tests)} groups of prompts, each one left out"
    return assemble(table, setting, cells, [everything for _ in seeds])


def _joined_parts(table: OutcomeTable, cells: Sequence[Cell]) -> Cell:
    """One cell of the cells of several parts, each at shares of its own extra budget."""
    parts = []
    for cell in cells:
        assert cell.decisions is not None  # noqa: S101  (`cross_fit` always has them)
        rows = cell.sweep.rows
        tiers = cost_quality.fixed(table.correct[rows], table.tokens[rows], rows).curve()
        parts.append(cost_quality.at_shares(cell.decisions, cell.sweep.curve(), tiers))
    decisions = Decisions(
        np.concatenate([part.rows for part in parts]), np.concatenate([part.chosen for part in parts], axis=1)
    )
    raw = [cell.uncalibrated for cell in cells if cell.uncalibrated]
    estimates = [cell.estimates for cell in cells if cell.estimates]
    return Cell(
        decisions.scored((table.correct[decisions.rows], table.tokens[decisions.rows])),
        _joined(estimates) if estimates else None,
        _joined(raw) if raw else None,
        float(np.mean([cell.seconds for cell in cells])),
        decisions,
    )


def category_groups(table: OutcomeTable, count: int = FOLDS, seed: int = 0) -> tuple[str, ...]:
    """The group of each prompt, [N]: all of a category's prompts are in one of at most `count` groups.

    The largest categories are placed first, each into the smallest group; the seed breaks ties.

    Raises: OutcomeError, if the table has no categories.
    """
    if not table.categories:
        raise OutcomeError(f"{table.name}: no row has a category")
    names, sizes = np.unique(table.categories, return_counts=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(names)), -sizes))
    filled = np.zeros(count, np.int64)
    group: dict[str, str] = {}
    for at in order:
        smallest = int(filled.argmin())
        group[names[at]] = f"group {smallest + 1}"
        filled[smallest] += sizes[at]
    return tuple(group[category] for category in table.categories)


def within(whole: Comparison, dataset: str) -> Comparison:
    """The same decisions, measured on one data set against the mixes of that data set."""
    keep = np.array([name == dataset for name in whole.table.datasets])
    cells = {name: [_kept(cell, keep) for cell in of_method] for name, of_method in whole.cells.items()}
    tested = [np.isin(np.arange(len(keep)), tiers.rows) & keep for tiers in whole.tiers]
    return assemble(whole.table, f"within {dataset}", cells, tested)


def _kept(cell: Cell, keep: NDArray[np.bool_]) -> Cell:
    chosen = keep[cell.sweep.rows]

    def those(estimates: Estimates | None) -> Estimates | None:
        return estimates and Estimates(estimates.correct[chosen], estimates.tokens[chosen])

    return cell._replace(
        sweep=cell.sweep.within(keep),
        estimates=those(cell.estimates),
        uncalibrated=those(cell.uncalibrated),
        decisions=cell.decisions and cell.decisions.within(keep),
    )


def assemble(
    table: OutcomeTable,
    setting: str,
    cells: Mapping[str, Sequence[Cell]],
    tested: Sequence[NDArray[np.bool_]],
) -> Comparison:
    """Add the fixed tiers and the oracle. `tested` has a mask of rows per seed."""
    some = np.any(tested, axis=0)  # the tested prompts alone decide which kind of oracle is possible
    best, kind = oracle(table.take(some))
    places = np.flatnonzero(some)
    whole = Sweep(places, best.tokens, best.correct)
    tiers = [
        cost_quality.fixed(table.correct[test], table.tokens[test], np.flatnonzero(test)) for test in tested
    ]
    return Comparison(table, setting, cells, tiers, [whole.within(test) for test in tested], kind)
