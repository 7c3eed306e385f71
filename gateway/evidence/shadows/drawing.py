"""Which requests may be asked again, and at which rung. No I/O: the random number is passed in."""

from __future__ import annotations

from gateway.budget.limits import Limit
from gateway.config.budgets import Budget
from gateway.config.evidence import PREVIOUS_HEAD, ShadowBudget, ShadowSettings
from gateway.openai_api.endpoints import CHAT
from gateway.openai_api.large_requests import LARGE_BODY
from gateway.routing.call import Call, Plan
from gateway.routing.decision import Decision
from gateway.store.commands import window
from router_model.allocation import best_tier
from router_model.predictor import Predictor

_TOOL_FIELDS = frozenset({"functions", "web_search_options"})
_NOT_COMPARED = frozenset({"logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids"})
"""Fields that ask for more than a text."""
_OFF = (b"null", b"false", b"0")
_NAME = "shadow"
_WINDOW = "%shadow"  # no name of a budget has a percent sign


def drawn_apart(settings: ShadowSettings, plan: Plan) -> bool:
    """Whether a request may be drawn: a chat with one answer in text, and more than one rung to choose from.

    Not one with tools, unless `tools` allows it, with images, with several choices or with log
    probabilities, and none so large that its body is not kept.
    """
    call, routing = plan.call, plan.routing
    if routing is None or call.endpoint is not CHAT or not settings.share:
        return False
    request, fields = call.request, call.request.fields
    if len(routing.choice.eligible) < 2 or request.choices != 1 or request.media or request.embeds:
        return False
    if len(call.body) > LARGE_BODY or any(
        bytes(fields[n]) not in _OFF for n in _NOT_COMPARED & fields.keys()
    ):
        return False
    return settings.tools or not (request.tools or _TOOL_FIELDS & fields.keys())


def shadow_rung(
    settings: ShadowSettings, call: Call, decision: Decision, previous: Predictor | None
) -> int | None:
    """The rung at which a request is asked again; None if it is the one that the client got.

    Only rungs are asked that the gateway could have chosen: a bound of the key, of a rule or of the client
    holds here too. previous: the head before, for `previous_head`.
    """
    ladder, rungs, against = call.target.ladder, decision.rungs, settings.against
    eligible = range(rungs.lowest, rungs.highest + 1)
    if against == PREVIOUS_HEAD:
        if previous is None:
            return None
        prediction = previous.predict(call.request.prompt, call.target.name, ladder.lengths)
        index = best_tier(prediction.correct, prediction.tokens, decision.price, eligible)
    elif against.isdecimal():
        within = [at for at, thinking in enumerate(ladder.thinking) if thinking <= int(against)]
        index = max(within, key=ladder.thinking.__getitem__, default=0)
    else:
        index = ladder.index(against)
    index = min(max(index, eligible.start), eligible.stop - 1)
    return None if index == decision.rung else index


def shadow_limit(budget: ShadowBudget, prefix: str) -> Limit:
    """The budget of shadow requests as the ledger knows budgets: strict, prompts included, shared by all.

    prefix: of the keys in Redis. While Redis is away, no shadow request is sent.
    """
    counted = Budget(
        name=_NAME,
        window=budget.window,
        tokens=budget.tokens,
        count="total",
        reserve="strict",
        when_redis_fails="closed",
    )
    return Limit(counted, "*", window(f"{{{prefix}}}", _WINDOW, budget.window, "*", budget.tokens))


def most_tokens_a_day(budget: ShadowBudget) -> int:
    """The most tokens that a budget lets pass within a day."""
    return round(budget.tokens * max(1.0, 86_400 / budget.window))
