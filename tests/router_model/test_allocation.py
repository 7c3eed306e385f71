"""Values, hulls and allocations, checked by brute force and against an independent solver."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from router_model.allocation import (
    allocate,
    best_tier,
    best_tiers,
    demand,
    hull,
    steps,
    value,
)

shares = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
lengths = st.floats(1, 5000)
tiers = st.lists(st.tuples(shares, lengths), min_size=1, max_size=5).map(
    lambda pairs: tuple(zip(*pairs, strict=True))
)
coarse = st.lists(
    st.tuples(st.integers(0, 4).map(lambda k: k / 4), st.integers(1, 6).map(float)), min_size=1, max_size=6
).map(lambda pairs: tuple(zip(*pairs, strict=True)))
"""Few different values, so that ties and points on one line are frequent."""

shapes = st.tuples(st.integers(1, 12), st.integers(1, 5))


# --- values and tiers -------------------------------------------------------------------------------


@given(st.one_of(tiers, coarse), st.sampled_from([0.0, 0.25, 0.5, 62.5, 250.0, math.inf]), st.data())
def test_best_tier_by_exhaustive_search(sample: tuple, price: float, data: st.DataObject) -> None:
    """No eligible tier is worth more, and none listed before it is worth as much."""
    correct, tokens = sample
    among = sorted(data.draw(st.sets(st.sampled_from(range(len(correct))), min_size=1)))
    chosen = best_tier(correct, tokens, price, among)
    worth = {tier: correct[tier] - price * tokens[tier] / 1000 for tier in among}

    assert chosen == min(tier for tier in among if worth[tier] == max(worth.values()))
    assert best_tier(correct, tokens, price, range(len(correct))) == best_tier(correct, tokens, price)


@given(st.one_of(tiers, coarse), st.floats(0, 1e4))
def test_arrays_and_floats_agree(sample: tuple, price: float) -> None:
    """The value of an array is that of its numbers, to the last digit."""
    correct, tokens = sample
    together = value(np.array(correct), np.array(tokens), price)

    assert together.tolist() == [value(*tier, price) for tier in zip(correct, tokens, strict=True)]


@given(st.one_of(tiers, coarse), st.floats(0, 1e4))
def test_a_batch_chooses_like_one_request(sample: tuple, price: float) -> None:
    """A row of a batch gets a tier of the same value, and on a tie the one with the fewest tokens."""
    correct, tokens = sample
    (chosen,) = best_tiers(np.array([correct]), np.array([tokens]), price)
    worth = [value(*tier, price) for tier in zip(correct, tokens, strict=True)]

    assert worth[chosen] == worth[best_tier(correct, tokens, price)]
    assert tokens[chosen] == min(tokens[k] for k in range(len(tokens)) if worth[k] == worth[chosen])


def test_ties_go_to_fewer_tokens() -> None:
    """At a price of zero, two tiers that are equally good are told apart by their cost."""
    assert best_tiers(np.array([[0.5, 0.5]]), np.array([[30.0, 10.0]]), 0.0).tolist() == [1]


# --- the hull ---------------------------------------------------------------------------------------


def corners(tokens: list[float], correct: list[float]) -> list[tuple[float, float]]:
    """The points on the hull."""
    return [(tokens[k], correct[k]) for k in hull(correct, tokens)]


def test_hull_drops_what_mixing_beats() -> None:
    """A tier below the line of its neighbours, and one that costs more for less, are no corners."""
    assert corners([1, 2, 3, 4], [0.1, 0.2, 0.7, 0.5]) == [(1, 0.1), (3, 0.7)]


def test_hull_of_one_price_twice() -> None:
    """Of two points with the same tokens, only the better counts."""
    assert corners([5, 5, 5], [0.2, 0.9, 0.4]) == [(5, 0.9)]


def mixture(correct: tuple, tokens: tuple, budget: float) -> float:
    """The most that a random mix of two tiers earns within a budget, by trying all pairs."""
    best = max(right for right, spent in zip(correct, tokens, strict=True) if spent <= budget)
    for low, high in itertools.permutations(range(len(tokens)), 2):
        if tokens[low] <= budget < tokens[high]:
            share = (budget - tokens[low]) / (tokens[high] - tokens[low])
            best = max(best, (1 - share) * correct[low] + share * correct[high])
    return best


@given(st.one_of(tiers, coarse), st.floats(0, 1))
def test_hull_by_brute_force(sample: tuple, place: float) -> None:
    """The hull rises, ever less steeply, and at every budget earns what the best mix of two tiers does."""
    correct, tokens = sample
    found = hull(correct, tokens)
    spent, right = [tokens[k] for k in found], [correct[k] for k in found]
    budget = min(tokens) + place * (max(tokens) - min(tokens))
    slopes = [slope for slope, _ in steps(correct, tokens)]

    assert all(low < high for low, high in itertools.pairwise(spent))
    assert all(low < high for low, high in itertools.pairwise(right))
    assert all(early >= late for early, late in itertools.pairwise(slopes))
    assert np.interp(budget, spent, right) == pytest.approx(mixture(correct, tokens, budget), abs=1e-9)


# --- the batch --------------------------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """Correctness on a grid, so that ties happen; whole tokens; budgets from too small to slack."""
    shape = draw(shapes)
    correct = draw(hnp.arrays(float, shape, elements=st.integers(0, 8).map(lambda k: k / 8)))
    tokens = draw(hnp.arrays(float, shape, elements=st.integers(0, 400).map(float)))
    budget = draw(st.floats(0, 500))
    return correct, tokens, budget


def optimum(correct: np.ndarray, tokens: np.ndarray, budget: float) -> tuple[float, float] | None:
    """Objective and price by HiGHS; None where no allocation fits."""
    optimize = pytest.importorskip("scipy.optimize")
    rows, tiers = correct.shape
    result = optimize.linprog(
        -correct.ravel() / rows,
        A_ub=tokens.reshape(1, -1) / rows,
        b_ub=[budget],
        A_eq=np.kron(np.eye(rows), np.ones(tiers)),
        b_eq=np.ones(rows),
        bounds=(0, 1),
        method="highs",
    )
    return (-result.fun, -result.ineqlin.marginals[0] * 1000) if result.status == 0 else None


@settings(deadline=None)
@given(problems())
def test_optimal(problem: tuple[np.ndarray, np.ndarray, float]) -> None:
    """No linear programme does better, the budget holds, and at most one prompt is split."""
    correct, tokens, budget = problem
    found, price = allocate(correct, tokens, budget)
    best = optimum(correct, tokens, budget)

    assert found.min() >= 0
    assert found.sum(axis=1) == pytest.approx(np.ones(len(correct)))
    assert ((found > 0) & (found < 1)).any(axis=1).sum() <= 1
    if best is None:
        assert price == np.inf
        assert (found * tokens).sum() == pytest.approx(tokens.min(axis=1).sum())
    else:
        assert (found * tokens).sum(axis=1).mean() <= budget + 1e-6
        assert (found * correct).sum(axis=1).mean() == pytest.approx(best[0], abs=1e-6)


def test_price_is_the_dual() -> None:
    """On continuous data, where the dual is unique, the price is the solver's."""
    draw = np.random.default_rng(3)
    correct = np.sort(draw.random((200, 4)), axis=1)
    tokens = np.sort(draw.integers(1, 2000, (200, 4)).astype(float), axis=1)
    for budget in (500.0, 700.0, 1200.0):
        best = optimum(correct, tokens, budget)
        assert best is not None
        assert allocate(correct, tokens, budget).price == pytest.approx(best[1], rel=1e-6)


def test_longer_is_not_better() -> None:
    """A tier that costs more and is right less often is never used, however large the budget."""
    found, price = allocate(np.array([[0.5, 0.9, 0.4]]), np.array([[10.0, 20.0, 30.0]]), 1e6)

    assert found.tolist() == [[0.0, 1.0, 0.0]]
    assert price == 0


@settings(deadline=None)
@given(problems())
def test_demand_agrees(problem: tuple[np.ndarray, np.ndarray, float]) -> None:
    """At a budget between two steps of the demand, the price is that of the next step."""
    correct, tokens, _ = problem
    budgets, prices = demand(correct, tokens)

    assert (np.diff(budgets) > 0).all()
    assert (np.diff(prices) <= 0).all()
    for upper, price in zip(budgets, prices, strict=True):
        assert allocate(correct, tokens, upper - 1e-4).price == pytest.approx(price)


@given(st.lists(tiers, min_size=1, max_size=4), st.floats(0, 1))
@example([((0.0, 0.0), (1.0, 1.0)), ((0.0, 0.001), (1.0, 1.0 + 2**-52))], 0.0)
def test_allocation_by_brute_force(sample: list[tuple], place: float) -> None:
    """No choice of one tier for each request is better within the budget, and the price is a fair one."""
    count = min(len(correct) for correct, _ in sample)
    correct, tokens = (np.array([row[side][:count] for row in sample]).round(6) for side in (0, 1))
    low, high = tokens.min(axis=1).mean(), tokens.max(axis=1).mean()
    budget = low + place * (high - low)
    assume(budget >= low)
    rows = np.arange(len(sample))
    picks = np.array(list(itertools.product(range(count), repeat=len(sample))))
    spent, right = tokens[rows, picks].mean(axis=1), correct[rows, picks].mean(axis=1)
    found, price = allocate(correct, tokens, budget)

    assert (found * correct).sum() / len(sample) >= right[spent <= budget].max() - 1e-9
    chosen = value((found * correct).sum(), (found * tokens).sum(), price)
    assert chosen == pytest.approx(value(correct, tokens, price).max(axis=1).sum(), abs=1e-6)
