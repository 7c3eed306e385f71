"""Price tables: of points, of a sample, and of the most recent requests."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.allocation import PriceTable, RecentPrices, RequestEstimates, best_tier, steps, value
from tests.router_model.test_allocation import tiers

TABLE = PriceTable([10, 30, 60, 100], [20, 6, 1, 0.01])

estimates = st.lists(tiers, min_size=1, max_size=12)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_tokens_never_cost_more(one: float, other: float) -> None:
    """The price falls as the budget of a request rises, and stays between its ends."""
    less, more = sorted((one, other))

    assert TABLE.ceiling >= TABLE.price(less) >= TABLE.price(more) >= TABLE.floor


def test_table_interpolates_in_logarithms() -> None:
    """At a point the price is the point's; half way in the logarithm it is the geometric mean."""
    table = PriceTable([10, 1000], [4, 1])

    assert [table.price(b) for b in (10, 100, 1000)] == pytest.approx([4, 2, 1])
    assert [table.price(b) for b in (0, 5, 2000, math.inf)] == [4, 4, 1, 1]
    assert table.price(math.nan) == 4


@pytest.mark.parametrize(
    ("budgets", "prices"),
    [
        ([], []),
        ([1], [1, 2]),
        ([1, 1], [2, 1]),
        ([2, 1], [2, 1]),
        ([1, 2], [1, 2]),
        ([0], [1]),
        ([1], [math.inf]),
    ],
)
def test_refuses_what_is_no_table(budgets: list[float], prices: list[float]) -> None:
    """Budgets must rise, prices must not, and all are positive and finite."""
    with pytest.raises(ValueError, match=r"price|budget"):
        PriceTable(budgets, prices)


@given(estimates, st.floats(1e-3, 1e4))
def test_best_tier_takes_the_dearer_steps(sample: list[tuple], price: float) -> None:
    """At a price the best tier has the value of the hull's steps that are dearer than it."""
    for correct, tokens in sample:
        chosen = best_tier(correct, tokens, price)

        cheapest = min(range(len(tokens)), key=lambda k: (tokens[k], -correct[k]))
        taken = correct[cheapest] - price * tokens[cheapest] / 1000
        taken += sum((slope - price) * more / 1000 for slope, more in steps(correct, tokens) if slope > price)
        assert value(correct[chosen], tokens[chosen], price) == pytest.approx(taken, abs=1e-6)


@given(estimates)
def test_table_of_a_sample_spends_its_budget(sample: list[tuple]) -> None:
    """At a table's own points the dearer steps stay within the budget, and with the equal ones fill it."""
    table = PriceTable.of(sample)
    base = sum(min(tokens) for _, tokens in sample)
    every = [step for correct, tokens in sample for step in steps(correct, tokens)]
    for budget in table.budgets[1:]:
        price = table.price(budget)
        dearer = base + sum(more for slope, more in every if slope > price * (1 + 1e-6))
        filled = base + sum(more for slope, more in every if slope >= price * (1 - 1e-6))

        assert dearer / len(sample) <= budget * (1 + 1e-6)
        assert filled / len(sample) >= budget * (1 - 1e-6)


def test_recent_prices_follow_the_traffic() -> None:
    """The first table serves until enough was seen; then the table is that of the last requests."""
    recent = RecentPrices(TABLE, size=100, every=10)
    for _ in range(9):
        recent.add(RequestEstimates([0.1, 0.9], [10, 510]))
    assert recent.table is TABLE

    recent.add(RequestEstimates([0.1, 0.9], [10, 510]))
    assert recent.table.ceiling == pytest.approx(1.6)
    for _ in range(100):
        recent.add(RequestEstimates([0.1, 0.2], [10, 510]))

    assert recent.table.ceiling == pytest.approx(0.2)


@given(st.lists(st.tuples(tiers, st.integers(1, 4), st.floats(0, 5000)), min_size=1, max_size=12))
def test_recent_prices_count_choices_and_prompts(sample: list[tuple]) -> None:
    """Every choice costs the tokens of its tier, and a prompt costs the same at every tier."""
    recent = RecentPrices(TABLE, every=len(sample))
    for (correct, tokens), choices, prompt in sample:
        recent.add(RequestEstimates(correct, tokens, choices, prompt))
    spent = [
        (correct, [prompt + choices * count for count in tokens])
        for (correct, tokens), choices, prompt in sample
    ]
    wanted = PriceTable.of(spent)

    assert (recent.table.budgets, recent.table.prices) == (wanted.budgets, wanted.prices)
