"""Turns a routing decision into a budget demand, and the reservation into the granted decision. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import replace as with_fields

from gateway.budget.reservation import Demand, Reservation, TierDemand
from gateway.config.budgets import Reservations
from gateway.openai_api.requests import ClientLimits
from gateway.routing.decision import Decision
from gateway.routing.exploration import Draw, propensity
from gateway.routing.policy import Bounds, Choice
from gateway.routing.tiers import Length, TierLadder
from router_model.allocation import PriceTable
from router_model.predictor import Prediction

TEMPLATE_TOKENS = 256
"""Upper bound on the tokens that a chat template adds to the text in a request body."""


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """A decision with what is needed to shorten it for a budget."""

    ladder: TierLadder
    bounds: Bounds
    client_limits: ClientLimits
    prediction: Prediction
    context: int | None
    """The model's context length; None if unknown."""
    choice: Choice
    decision: Decision
    prices: PriceTable | None = None
    """The head's own price table. A budget uses it until it has seen enough requests."""

    @property
    def guaranteed(self) -> int:
        """Reasoning tokens that a floor or a fixed tier promises, so that no budget may take them away."""
        guarantee = self.bounds.guarantee
        return 0 if guarantee is None else self.ladder.tiers[guarantee].thinking

    @property
    def tiers(self) -> tuple[int, ...]:
        """Positions of the tiers that a budget may grant, most expensive first; only one if it is fixed."""
        wanted = self.ladder.index(self.decision.tier)
        if self.bounds.fixed:
            return (wanted,)
        low = self.bounds.floor.index if self.bounds.floor else 0
        eligible = [self.ladder.index(name) for name in self.decision.eligible]
        return tuple(range(max(wanted, *eligible), min(low, wanted) - 1, -1))

    def estimates(self, choices: int) -> tuple[list[float], list[float]]:
        """P(right) and the expected completion tokens of all choices, by tier that a budget may grant."""
        correct, tokens = self.prediction.correct, self.prediction.tokens
        return [correct[k] for k in self.tiers], [tokens[k] * choices for k in self.tiers]

    def length(self, index: int) -> Length:
        return self.ladder.length(index, self.client_limits, self.guaranteed, self.context)

    def tier_demand(self, index: int, longest_answer: int) -> TierDemand:
        length, prediction = self.length(index), self.prediction
        max_tokens = length.max_tokens
        if max_tokens is None:
            max_tokens = length.thinking + longest_answer
            max_tokens = min(max_tokens, self.context or max_tokens)
        likely = math.ceil(prediction.p95[index]) if prediction.p95 else None
        return TierDemand(max_tokens, likely, min(round(prediction.tokens[index]), max_tokens))

    def demand(self, reservations: Reservations, *, choices: int, body: bytes, prompts: int = 1) -> Demand:
        """What the ledger must know to reserve tokens: the need of every tier, and how far to shorten.

        prompts: number of prompts in the body.
        """
        tiers = self.tiers
        demands = tuple(self.tier_demand(index, reservations.longest_answer) for index in tiers)
        kept = min(self.guaranteed, self.ladder.tiers[tiers[-1]].thinking)
        return Demand(
            tiers=demands,
            wanted=tiers.index(self.ladder.index(self.decision.tier)),
            choices=choices,
            prompt=prompt_bound(body, self.context, prompts),
            minimum=min(kept + reservations.shortest_answer, demands[-1].max_tokens),
            soft=not kept,
        )

    def granted(self, reservation: Reservation) -> Decision:
        """The decision as the budgets granted it.

        They may have granted a cheaper tier or fewer tokens, or set a token limit where the tier has none.
        """
        index = self.tiers[reservation.tier]
        length = self.length(index)
        if reservation.clamp:
            length = self._cut(index, reservation.clamp)
        elif length.max_tokens is None and reservation.strict:
            length = Length(length.thinking, reservation.max_tokens)
        changes: dict[str, Any] = {"thinking": length.thinking, "cap": length.max_tokens}
        if self.choice.draw:
            changes["propensity"] = self._propensity(self.choice.draw, index, reservation)
        if reservation.shortened:
            changes |= {
                "tier": self.ladder.names[index],
                "reason": "budget",
                "rule": None,
                "wanted": self.decision.tier,
            }
        return with_fields(self.decision, **changes)

    def _propensity(self, draw: Draw, index: int, reservation: Reservation) -> float:
        """The probability of the granted tier, which the log needs to compare policies later.

        The budget can turn several draws into the same tier, so their probabilities add up.
        """
        if not reservation.reply:  # Redis was away: `degrade` grants the cheapest tier whatever was drawn
            return 1.0 if reservation.fallback == "degrade" else draw.probabilities[index]
        if reservation.clamp:  # no tier fits as a whole, so every draw leads to the cheapest one, cut
            return 1.0
        room = [tier for at, tier in enumerate(self.tiers) if reservation.reply.fits >> at & 1]
        return propensity(draw, index, room)

    def _cut(self, index: int, clamp: int) -> Length:
        """The length of a tier cut to `clamp` completion tokens, which always cover the guarantee."""
        kept = min(self.guaranteed, self.ladder.tiers[index].thinking)
        # `length` grants guaranteed reasoning on top of the client's limit, so subtract it first.
        most = min(clamp - kept, self.client_limits.max_tokens or clamp)
        length = self.ladder.length(index, replace(self.client_limits, max_tokens=most), kept, self.context)
        max_tokens = clamp if length.max_tokens is None else min(length.max_tokens, clamp)
        return Length(min(length.thinking, max_tokens), max_tokens)


def prompt_bound(body: bytes, context: int | None = None, prompts: int = 1) -> int:
    """Upper bound on the tokens of all prompts in a request body.

    A token of text has at least one byte, and the backend refuses a prompt that exceeds the context.
    """
    bound = len(body) + TEMPLATE_TOKENS
    return bound if context is None else min(bound, prompts * context)
