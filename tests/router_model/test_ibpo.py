"""Allocation of a token budget, checked against an independent solver."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from router_model.ibpo import allocate, demand

shapes = st.tuples(st.integers(1, 12), st.integers(1, 5))


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
