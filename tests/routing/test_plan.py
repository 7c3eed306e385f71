"""What a budget may grant: never less than is guaranteed, never more than was reserved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.budget.limits import Limit, duration, span
from gateway.budget.reservation import Demand, Outcome, Reservation
from gateway.config.budgets import Budget, FailurePolicy, Reservations
from gateway.openai_api.requests import ClientLimits
from gateway.openai_api.usage import TokenUsage
from gateway.routing import policy
from gateway.routing.bounds import Bound, Bounds
from gateway.routing.decision import Decision
from gateway.routing.exploration import Draw
from gateway.routing.outline import Outline
from gateway.routing.plan import RoutingPlan
from gateway.routing.tiers import TierLadder
from gateway.store.commands import ReserveReply, window
from router_model.predictor import Prediction
from tests.making import any_limits, ladder, ladders


def limit(**budget: Any) -> Limit:
    made = Budget.model_validate({"name": "b", "window": "1m", "tokens": 1000} | budget)
    return Limit(made, "*", window("{t}", "b", 60, "*", 1000))


@st.composite
def plans(draw: Any) -> RoutingPlan:
    """Plans over any ladder, client limits, bounds and room beside the prompt.

    Only named tiers are floors, fixed or pinned.
    """
    tiers: TierLadder = draw(ladders)
    count = len(tiers.rungs)
    named = st.sampled_from(tiers.named)
    floor = draw(st.none() | named)
    fixed = draw(st.none() | named)
    bounds = Bounds(
        ceiling=Bound(draw(st.integers(0, count - 1)), "client_ceiling"),
        floor=None if floor is None else Bound(floor, "model_floor"),
        fixed=None if fixed is None else Bound(fixed, "rule_tier"),
        pin=draw(st.none() | named),
    )
    estimates = st.lists(st.floats(1, 9000), min_size=count, max_size=count).map(tuple)
    shares = st.lists(st.floats(0, 1), min_size=count, max_size=count).map(tuple)
    prediction = Prediction(0.5, draw(shares), draw(estimates), draw(st.just(()) | estimates))
    limits, context = draw(any_limits), draw(st.none() | st.integers(1, 40_000))
    plan = planned(tiers, bounds, limits, prediction, 0.02, context)
    room = None if context is None else draw(st.none() | st.integers(1, context))
    return plan if room is None else plan.with_room(room)


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
    outline = Outline(tiers, bounds, limits, context)
    decision = policy.build_decision(
        outline, prediction, price, choice=choice, decision_id="d", model="m", versions={}
    )
    return RoutingPlan(outline, prediction, choice, decision)


def drawn(plan: RoutingPlan, rung: int, draw: Draw) -> RoutingPlan:
    """The plan, had this rung been drawn."""
    decision = replace(plan.decision, rung=rung, tier=plan.outline.ladder.tier_at(rung))
    had = replace(plan, choice=replace(plan.choice, index=rung, draw=draw), decision=decision)
    return had if plan.outline.room is None else had.with_room(plan.outline.room)


@pytest.mark.parametrize("tier", ["direct", "long"])
def test_propensity_without_redis(tier: str) -> None:
    """`degrade` grants the cheapest tier whatever was drawn; `open` grants what was drawn."""
    tiers = ladder(rungs=9)
    bounds = Bounds(Bound(8, "client_ceiling"))
    prediction = Prediction(0.5, tuple(n / 9 for n in range(9)), tuple(100.0 * n for n in range(9)))
    plan = planned(tiers, bounds, ClientLimits(), prediction, 0.0, None)
    position = tiers.index(tier)
    draw = Draw(position, {rung: (0.02 if rung < 8 else 0.84) for rung in range(9)})
    plan = drawn(plan, position, draw)
    demand = plan.demand(Reservations(), choices=1)

    def without_redis(granted: int, fallback: FailurePolicy) -> Decision:
        reservation = Reservation("r", (limit(),), demand, granted, fallback=fallback)
        return plan.granted(reservation, Reservations())

    degraded, opened = without_redis(len(demand.tiers) - 1, "degrade"), without_redis(0, "open")

    assert (degraded.tier, degraded.propensity) == ("direct", 1.0)
    assert (opened.tier, opened.propensity) == (tier, draw.probabilities[position])


def reply(candidate: int, clamp: int, rooms: list[int]) -> ReserveReply:
    return ReserveReply(candidate, clamp, 1, 0, 0, 1000, 0, 0, 0, 0, 0, 0, rooms)


def limited(demand: Demand, limits: tuple[Limit, ...], rooms: list[int]) -> tuple[int, int]:
    """What reserve.lua grants, if it need not refuse: the candidate, and 7 tokens if the last one is cut."""
    for position, tier in enumerate(demand.tiers):
        amounts = [demand.amount(limit, tier) for limit in limits]
        if all(amount <= room for amount, room in zip(amounts, rooms, strict=True)):
            return position, 0
    return len(demand.tiers) - 1, 7


@given(plans(), st.lists(st.integers(0, 60_000), min_size=2, max_size=2), st.sampled_from(["strict", "p95"]))
def test_propensity_counts_every_draw(plan: RoutingPlan, rooms: list[int], reserve: str) -> None:
    """The propensity of what is granted is the sum over all draws that the limiter turns into it."""
    count = len(plan.choice.eligible)
    draw = Draw(0, {rung: (k + 1) / (count * (count + 1) / 2) for k, rung in enumerate(plan.choice.eligible)})
    limits = (limit(reserve=reserve), limit(count="total", reserve=reserve))
    outcomes = {}
    for rung in plan.choice.eligible:
        had = drawn(plan, rung, draw)
        demand = had.demand(Reservations(), choices=2, prompt=296)
        tier, clamp = limited(demand, limits, rooms)
        reservation = Reservation("r", limits, demand, tier, clamp, reply(tier + 1, clamp, rooms))
        granted = had.granted(reservation, Reservations())
        outcomes[rung] = (granted.rung, clamp), granted.propensity

    for outcome, propensity in outcomes.values():
        share = sum(draw.probabilities[rung] for rung, (other, _) in outcomes.items() if other == outcome)
        assert propensity == pytest.approx(share)


@given(plans(), st.integers(1, 4), st.data())
def test_what_is_granted_was_reserved(plan: RoutingPlan, choices: int, data: st.DataObject) -> None:
    """The token limit sent upstream never exceeds the reservation, and no cut goes below the guarantee."""
    demand = plan.demand(Reservations(shortest_answer=50), choices=choices, prompt=296)
    tier = data.draw(st.integers(0, len(demand.tiers) - 1))
    cut = tier == len(demand.tiers) - 1 and data.draw(st.booleans())
    clamp = data.draw(st.integers(demand.minimum, demand.tiers[-1].max_tokens)) if cut else 0
    reservation = Reservation("r", (limit(), limit(count="total")), demand, tier, clamp)

    granted = plan.granted(reservation, Reservations())

    assert granted.cap is not None
    assert granted.thinking <= granted.cap <= reservation.max_tokens
    completion, total = reservation.amounts()
    assert completion == choices * reservation.max_tokens
    assert total == completion + 296
    lowest = plan.outline.bounds.fixed or plan.outline.bounds.floor
    if lowest:
        assert granted.rung >= plan.outline.fitting(lowest.index)
        promised = plan.outline.length(granted.rung).thinking
        kept = min(plan.outline.guaranteed, plan.outline.ladder.thinking[granted.rung])
        assert granted.thinking >= min(kept, promised)
    assert granted.tier == plan.outline.ladder.tier_at(granted.rung)
    assert granted.rung_tokens == plan.prediction.tokens[granted.rung]
    assert (granted.reason == "budget") == reservation.shortened
    was = (plan.decision.wanted, plan.decision.wanted_rung)
    if reservation.shortened and was == (None, None):
        was = (plan.decision.tier, plan.decision.rung)
    assert (granted.wanted, granted.wanted_rung) == was


@given(plans())
def test_candidates_fall(plan: RoutingPlan) -> None:
    """A budget may grant the wanted rung, or a named tier below it down to the floor."""
    demand = plan.demand(Reservations(), choices=1)
    wanted, *below = plan.candidates(plan.decision.rung)

    assert wanted == plan.decision.rung
    assert below == sorted(below, reverse=True)
    fit = {at for at in plan.outline.ladder.named if plan.outline.fitting(at) == at}
    assert set(below) == {at for at in fit if at in plan.span and at < wanted}
    longest = plan.outline.max_tokens(plan.span[-1], Reservations().longest_answer)
    assert demand.largest == demand.prompt + max(longest, demand.tiers[0].max_tokens)
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
    likely = one(p95=(90.0, 250.0, 450.5, 5000.0)).demand(Reservations(), choices=2)
    unknown = one().demand(Reservations(), choices=2)
    soft, hard = limit(reserve="p95"), limit()

    assert [likely.amount(soft, t) for t in likely.tiers] == [2 * 900, 2 * 451, 2 * 250, 2 * 90]
    assert [likely.amount(hard, t) for t in likely.tiers] == [2 * 900, 2 * 500, 2 * 300, 2 * 100]
    assert [unknown.amount(soft, t) for t in unknown.tiers] == [2 * 900, 2 * 500, 2 * 300, 2 * 100]


def test_unknown_usage_is_settled_on_the_safe_side() -> None:
    """Settlement uses the backend's count, else the tokens of the stream, else the whole reservation."""
    demand = one().demand(Reservations(), choices=1, prompt=300)
    reservation = Reservation("r", (limit(), limit(count="total")), demand, 0)

    def spent(
        usage: TokenUsage, *, refused: bool = False, unreadable: bool = False, attempts: int = 1, **how: Any
    ) -> list[int]:
        reservation.outcome = Outcome(usage, attempts=attempts, **how)
        return [tokens for tokens, _ in reservation.spent(refused=refused, unreadable=unreadable)]

    assert spent(TokenUsage(prompt=7, completion=30)) == [30, 37]
    assert spent(TokenUsage(completion=5), streamed=True) == [5, 5 + 300]
    assert spent(TokenUsage(), streamed=True) == [0, 300]
    assert spent(TokenUsage()) == [900, 1200]
    assert spent(TokenUsage(), refused=True) == [0, 0]
    assert spent(TokenUsage(), attempts=0) == [0, 0]
    assert spent(TokenUsage(), refused=True, answered=True) == [900, 1200]
    assert spent(TokenUsage(), streamed=True, unreadable=True) == [900, 1200]
    assert spent(TokenUsage(), attempts=0, unreadable=True) == [0, 0]
    assert spent(TokenUsage(), streamed=True, silent=True) == [900, 1200]
    assert spent(
        TokenUsage(prompt=7, completion=40, source="counted", deltas=9), streamed=True, unseen=100
    ) == [
        109,
        116,
    ]
    assert spent(TokenUsage(prompt=7, completion=5), streamed=True, held=10**6) == [900, 907]
    assert spent(TokenUsage(prompt=7, completion=2000, source="backend"), streamed=True) == [2000, 2007]


def test_a_stream_beyond_its_percentile_reserves_its_limit() -> None:
    """Under `p95`, a stream that has passed its reservation is renewed with all that it may spend."""
    demand = one(p95=(90.0, 250.0, 450.5, 600.0)).demand(Reservations(), choices=1, prompt=300)
    passed = 0
    reservation = Reservation("r", (limit(reserve="p95"), limit()), demand, 0, progress=lambda: passed)
    before = reservation.renewal()
    passed = 601

    assert before == [(600, 0), (900, 0)]
    assert reservation.renewal() == [(900, 601), (900, 601)]
    passed = -1
    assert reservation.renewal() == [(600, -1), (900, -1)]


def test_a_renewal_reports_no_more_than_was_reserved() -> None:
    """If the gateway dies, a reservation counts as last reported, so an estimate must not exceed it."""
    demand = one().demand(Reservations(), choices=2, prompt=300)
    reservation = Reservation("r", (limit(), limit(count="total")), demand, 0, progress=lambda: 10**6)

    for amount, spent in reservation.renewal():
        assert spent == amount


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
