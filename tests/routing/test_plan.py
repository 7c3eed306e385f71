"""What a budget may grant: never less than is guaranteed, never more than was reserved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as with_fields

from gateway.budget.limits import Limit, duration, span
from gateway.budget.reservation import Outcome, Reservation
from gateway.config.budgets import Budget, Reservations
from gateway.openai_api.requests import ClientLimits
from gateway.openai_api.usage import TokenUsage
from gateway.routing import policy
from gateway.routing.exploration import Draw
from gateway.routing.plan import RoutingPlan, prompt_bound
from gateway.routing.policy import Bound, Bounds
from gateway.routing.tiers import TierLadder
from gateway.store.commands import window
from router_model.predictor import Prediction
from tests.making import any_limits, ladder, ladders


def limit(**budget: Any) -> Limit:
    made = Budget.model_validate({"name": "b", "window": "1m", "tokens": 1000} | budget)
    return Limit(made, "*", window("{t}", "b", 60, "*", 1000))


@st.composite
def plans(draw: Any) -> RoutingPlan:
    """Plans over any ladder, client limits and bounds."""
    tiers: TierLadder = draw(ladders)
    count = len(tiers.names)
    position = st.integers(0, count - 1)
    floor = draw(st.none() | position)
    fixed = draw(st.none() | position)
    bounds = Bounds(
        ceiling=Bound(draw(position), "client_ceiling"),
        floor=None if floor is None else Bound(floor, "model_floor"),
        fixed=None if fixed is None else Bound(fixed, "rule_tier"),
        pin=draw(st.none() | position),
    )
    estimates = st.lists(st.floats(1, 9000), min_size=count, max_size=count).map(tuple)
    shares = st.lists(st.floats(0, 1), min_size=count, max_size=count).map(tuple)
    prediction = Prediction(0.5, draw(shares), draw(estimates), draw(st.just(()) | estimates))
    limits, context = draw(any_limits), draw(st.none() | st.integers(1, 40_000))
    return planned(tiers, bounds, limits, prediction, 0.02, context)


def planned(
    tiers: TierLadder,
    bounds: Bounds,
    limits: ClientLimits,
    prediction: Prediction,
    price: float,
    context: int | None,
) -> RoutingPlan:
    """The plan as the router makes it, without exploration."""
    choice = policy.choose(bounds, prediction, price)
    decision = policy.build_decision(
        tiers,
        bounds,
        limits,
        prediction,
        price,
        choice=choice,
        decision_id="d",
        model="m",
        context=context,
        versions={},
    )
    return RoutingPlan(tiers, bounds, limits, prediction, context, choice, decision)


@pytest.mark.parametrize("drawn", ["direct", "long"])
def test_propensity_without_redis(drawn: str) -> None:
    """`degrade` grants the cheapest tier whatever was drawn; `open` grants what was drawn."""
    tiers = ladder()
    bounds = Bounds(Bound(3, "client_ceiling"))
    prediction = Prediction(0.5, (0.2, 0.4, 0.6, 0.8), (50.0, 100.0, 200.0, 400.0))
    plan = planned(tiers, bounds, ClientLimits(), prediction, 0.0, None)
    position = tiers.index(drawn)
    draw = Draw(position, {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.7})
    choice = replace(plan.choice, index=position, draw=draw)
    plan = replace(plan, choice=choice, decision=with_fields(plan.decision, tier=drawn))
    demand = plan.demand(Reservations(), choices=1, body=b"")
    cheapest = len(demand.tiers) - 1

    degraded = plan.granted(Reservation("r", (limit(),), demand, cheapest, fallback="degrade"))
    opened = plan.granted(Reservation("r", (limit(),), demand, demand.wanted, fallback="open"))

    assert (degraded.tier, degraded.propensity) == ("direct", 1.0)
    assert (opened.tier, opened.propensity) == (drawn, draw.probabilities[position])


@given(plans(), st.integers(1, 4), st.data())
def test_what_is_granted_was_reserved(plan: RoutingPlan, choices: int, data: st.DataObject) -> None:
    """The token limit sent upstream never exceeds the reservation, and no cut goes below the guarantee."""
    demand = plan.demand(Reservations(shortest_answer=50), choices=choices, body=b"x" * 40)
    tier = data.draw(st.integers(demand.wanted, len(demand.tiers) - 1))
    cut = tier == len(demand.tiers) - 1 and data.draw(st.booleans())
    clamp = data.draw(st.integers(demand.minimum, demand.tiers[-1].max_tokens)) if cut else 0
    reservation = Reservation("r", (limit(), limit(count="total")), demand, tier, clamp)

    granted = plan.granted(reservation)

    assert granted.cap is not None
    assert granted.thinking <= granted.cap <= reservation.max_tokens
    completion, total = reservation.amounts()
    assert completion == choices * reservation.max_tokens
    assert total == completion + prompt_bound(b"x" * 40, plan.context)
    index = plan.ladder.index(granted.tier)
    lowest = plan.bounds.fixed or plan.bounds.floor
    if lowest:
        assert index >= lowest.index
        promised = plan.ladder.length(index, plan.client_limits, plan.guaranteed, plan.context).thinking
        kept = min(plan.guaranteed, plan.ladder.tiers[index].thinking)
        assert granted.thinking >= min(kept, promised)
    assert (granted.reason == "budget") == reservation.shortened
    assert granted.wanted == (plan.decision.tier if reservation.shortened else None)


@given(plans())
def test_tiers_fall(plan: RoutingPlan) -> None:
    """A plan lists its tiers from the most expensive down, and wants the tier of the decision."""
    demand = plan.demand(Reservations(), choices=1, body=b"")

    assert list(plan.tiers) == sorted(plan.tiers, reverse=True)
    assert plan.ladder.names[plan.tiers[demand.wanted]] == plan.decision.tier
    assert all(0 <= t.expected <= t.max_tokens for t in demand.tiers)
    assert 0 < demand.minimum <= max(demand.tiers[-1].max_tokens, 1) or demand.tiers[-1].max_tokens == 0


def one(**changes: Any) -> RoutingPlan:
    """A plan over four tiers without bounds, decided for the longest."""
    tiers = ladder()
    bounds = Bounds(ceiling=Bound(3, "client_ceiling"))
    prediction = Prediction(0.5, (0.1, 0.2, 0.3, 0.9), (50.0, 150.0, 300.0, 600.0), **changes)
    return planned(tiers, bounds, ClientLimits(), prediction, 0.0, None)


def test_p95_is_what_is_likely() -> None:
    """`p95` reserves the head's 95th percentile, or the token limit if the head has none."""
    likely = one(p95=(90.0, 250.0, 450.5, 5000.0)).demand(Reservations(), choices=2, body=b"")
    unknown = one().demand(Reservations(), choices=2, body=b"")
    soft, hard = limit(reserve="p95"), limit()

    assert [likely.amount(soft, t) for t in likely.tiers] == [2 * 900, 2 * 451, 2 * 250, 2 * 90]
    assert [likely.amount(hard, t) for t in likely.tiers] == [2 * 900, 2 * 500, 2 * 300, 2 * 100]
    assert [unknown.amount(soft, t) for t in unknown.tiers] == [2 * 900, 2 * 500, 2 * 300, 2 * 100]


def test_unknown_usage_is_settled_on_the_safe_side() -> None:
    """Settlement uses the backend's count, else the tokens of the stream, else the whole reservation."""
    demand = one().demand(Reservations(), choices=1, body=b"x" * 44)
    reservation = Reservation("r", (limit(), limit(count="total")), demand, 0)

    def spent(usage: TokenUsage, *, refused: bool = False, attempts: int = 1, **how: bool) -> list[int]:
        reservation.outcome = Outcome(usage, attempts=attempts, **how)
        return [tokens for tokens, _ in reservation.spent(refused=refused)]

    assert spent(TokenUsage(prompt=7, completion=30)) == [30, 37]
    assert spent(TokenUsage(completion=5), streamed=True) == [5, 5 + 300]
    assert spent(TokenUsage(), streamed=True) == [0, 300]
    assert spent(TokenUsage()) == [900, 1200]
    assert spent(TokenUsage(), refused=True) == [0, 0]
    assert spent(TokenUsage(), attempts=0) == [0, 0]
    assert spent(TokenUsage(), refused=True, answered=True) == [900, 1200]


def test_durations_are_written_as_openai_does() -> None:
    """Durations in milliseconds, seconds, minutes and hours."""
    written = {0: "0ms", 250: "250ms", 1000: "1s", 1001: "2s", 60_000: "1m0s", 359_500: "6m0s"}
    assert {ms: duration(ms) for ms in written} == written
    assert duration(86_400_000) == "24h0m0s"
    assert [span(n) for n in (1.5, 90, 60, 3_600, 86_400, 604_800)] == [
        "1.5s",
        "90s",
        "1m",
        "1h",
        "24h",
        "7d",
    ]
