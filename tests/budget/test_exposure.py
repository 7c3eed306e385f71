"""Under `reserve: p95`, the running requests of a gateway exceed a window by a share of it at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.budget.exposure import Exposures
from gateway.budget.limits import Limit
from gateway.budget.reservation import Demand, TierDemand
from gateway.config.budgets import Budget
from gateway.store.commands import window


def limit(name: str, reserve: str, tokens: int = 1000) -> Limit:
    budget = Budget.model_validate({"name": name, "window": "1m", "tokens": tokens, "reserve": reserve})
    return Limit(budget, "*", window("{t}", name, 60, "*", tokens))


LIMITS = (limit("a", "p95"), limit("b", "p95", 500), limit("c", "strict"))
demands = st.builds(
    lambda most, likely, choices: Demand((TierDemand(most, likely),), choices=choices),
    st.integers(1, 300),
    st.none() | st.integers(1, 300),
    st.integers(1, 3),
)


@given(st.floats(0, 1), st.lists(demands, max_size=20), st.randoms())
def test_the_sum_is_bounded(share: float, wanted: list[Demand], random: st.DataObject) -> None:
    """However many requests run, what they may use beyond their reservations stays within the share."""
    exposures, running = Exposures(share), []
    for demand in wanted:
        running.append(exposures.claim(LIMITS, demand))
        for budget in LIMITS:
            beyond = sum(d.most(budget, d.tiers[0]) - d.amount(budget, d.tiers[0]) for d, _ in running)
            assert beyond <= share * budget.budget.tokens
        if random.random() < 0.3:  # type: ignore[attr-defined]
            exposures.release(running.pop()[1])
    for _, claim in running:
        exposures.release(claim)
    assert not exposures._tokens


def test_a_strict_budget_has_no_exposure() -> None:
    """Where everything is reserved, or the head has no estimate, nothing changes."""
    exposures = Exposures(0)
    demand = Demand((TierDemand(100, 20),))

    assert exposures.claim(LIMITS[2:], demand) == (demand, ())
    assert exposures.claim(LIMITS, Demand((TierDemand(100),))) == (Demand((TierDemand(100),)), ())
    assert exposures.claim(LIMITS, demand)[0].strict
