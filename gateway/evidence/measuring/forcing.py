"""The plan of a request that gets a given rung, with everything else as serving has it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from gateway.budget.limits import Limit
from gateway.budget.reservation import Demand
from gateway.config.settings import Settings
from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.openai_api.endpoints import CHAT
from gateway.openai_api.requests import encode
from gateway.routing.bounds import Bound, Bounds
from gateway.routing.call import Call, Plan, Target
from gateway.routing.outline import Outline
from gateway.routing.plan import RoutingPlan
from gateway.routing.policy import build_decision, choose
from gateway.upstream.pool import Pool
from router_model.predictor import Predictor


def call_of(
    prompt: MeasuredPrompt,
    target: Target,
    pool: Pool,
    settings: Settings,
    *,
    limits: tuple[Limit, ...] = (),
    fields: Mapping[str, Any] | None = None,
) -> Call:
    """A client's request with this prompt. fields: what it sends besides, such as `temperature`.

    Raises: InvalidRequest.
    """
    body = encode({"model": target.name, "messages": prompt.messages, **(fields or {})})
    return Call(CHAT, None, {}, CHAT.parse(body), body, target, pool, pool.context, limits, settings)


def planned_at(call: Call, index: int, predictor: Predictor) -> Plan:
    """The plan of a call at the rung of this position, whatever the head, rules and floors would say."""
    ladder = call.target.ladder
    bounds = Bounds(ceiling=Bound(len(ladder.rungs) - 1, "client_ceiling"), pin=index)
    outline = Outline(ladder, bounds, call.request.client_limits, call.context)
    prediction = predictor.predict(call.request.prompt, call.target.name, ladder.lengths)
    choice = choose(bounds, prediction, 0.0)
    decision = build_decision(
        outline, prediction, 0.0, choice=choice, decision_id="", model=call.target.name, versions={}
    )
    return Plan(call, RoutingPlan(outline, prediction, choice, decision), decision)


def whole_demand(plan: Plan) -> Demand:
    """What the plan needs from its budgets: all of its rung, since a shortened one would measure another."""
    demand = plan.demand
    return replace(demand, tiers=demand.tiers[:1], minimum=demand.tiers[0].max_tokens, soft=False)
