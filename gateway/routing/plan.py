"""What the budget may grant in place of the tier decided on, and the decision once it has. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import replace as with_fields

from gateway.config.budgets import Reservations
from gateway.openai_api.requests import Wish
from gateway.pacing import Draw, propensity
from gateway.reservation import Need, Reservation, Step
from gateway.routing.policy import Bounds, Choice, Decision
from gateway.routing.tiers import Ladder, Length
from router_model.allocation import PriceTable
from router_model.predictor import Prediction

TEMPLATE_TOKENS = 256
"""Tokens that a chat template adds at most to what stands in the request's body."""


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """A decision, and what another would have to be made from."""

    ladder: Ladder
    bounds: Bounds
    wish: Wish
    prediction: Prediction
    context: int | None
    choice: Choice
    decision: Decision
    prices: PriceTable | None = None
    """What tokens buy, until the budget has seen requests of its own."""

    @property
    def guaranteed(self) -> int:
        """Reasoning tokens that nobody may take away."""
        guarantee = self.bounds.guarantee
        return 0 if guarantee is None else self.ladder.tiers[guarantee].thinking

    @property
    def tiers(self) -> tuple[int, ...]:
        """Positions the budget may grant, dearest first: none under a floor, and only a fixed one."""
        wanted = self.ladder.index(self.decision.tier)
        if self.bounds.fixed:
            return (wanted,)
        low = self.bounds.floor.index if self.bounds.floor else 0
        eligible = [self.ladder.index(name) for name in self.decision.eligible]
        return tuple(range(max(wanted, *eligible), min(low, wanted) - 1, -1))

    def estimates(self, choices: int) -> tuple[list[float], list[float]]:
        """P(right) and tokens expected of the tiers the request may get."""
        correct, tokens = self.prediction.correct, self.prediction.tokens
        return [correct[k] for k in self.tiers], [tokens[k] * choices for k in self.tiers]

    def length(self, index: int) -> Length:
        return self.ladder.length(index, self.wish, self.guaranteed, self.context)

    def step(self, index: int, longest_answer: int) -> Step:
        length, prediction = self.length(index), self.prediction
        cap = length.cap
        if cap is None:
            cap = min(length.thinking + longest_answer, self.context or length.thinking + longest_answer)
        likely = math.ceil(prediction.p95[index]) if prediction.p95 else None
        return Step(cap, likely, min(round(prediction.tokens[index]), cap))

    def need(self, reservations: Reservations, *, choices: int, body: bytes, prompts: int = 1) -> Need:
        """What the request may spend, by tier; `prompts` is how many its body holds."""
        tiers = self.tiers
        steps = tuple(self.step(index, reservations.longest_answer) for index in tiers)
        kept = min(self.guaranteed, self.ladder.tiers[tiers[-1]].thinking)
        return Need(
            steps=steps,
            wanted=tiers.index(self.ladder.index(self.decision.tier)),
            choices=choices,
            prompt=prompt_bound(body, self.context, prompts),
            minimum=min(kept + reservations.shortest_answer, steps[-1].cap),
            soft=not kept,
        )

    def granted(self, reservation: Reservation) -> Decision:
        """The decision after the reservation: another tier, a smaller cap, or a cap where there was none."""
        index = self.tiers[reservation.step]
        length = self.length(index)
        if reservation.clamp:
            length = self._cut(index, reservation.clamp)
        elif length.cap is None and reservation.strict:
            length = Length(length.thinking, reservation.cap)
        changes: dict[str, Any] = {"thinking": length.thinking, "cap": length.cap}
        if self.choice.draw:
            changes["propensity"] = self._propensity(self.choice.draw, index, reservation)
        if reservation.shortened():
            changes |= {
                "tier": self.ladder.names[index],
                "reason": "budget",
                "rule": None,
                "wanted": self.decision.tier,
            }
        return with_fields(self.decision, **changes)

    def _propensity(self, draw: Draw, index: int, reservation: Reservation) -> float:
        """How likely the tier granted was, over all the draws that would have led to it."""
        if not reservation.grant:
            return 1.0 if reservation.shortened() else draw.probabilities[index]
        if reservation.clamp:
            return 1.0
        room = [tier for at, tier in enumerate(self.tiers) if reservation.grant.fits >> at & 1]
        return propensity(draw, index, room)

    def _cut(self, index: int, clamp: int) -> Length:
        """A tier within `clamp` completion tokens in all, which never is below the guarantee."""
        kept = min(self.guaranteed, self.ladder.tiers[index].thinking)
        most = min(clamp - kept, self.wish.max_tokens or clamp)
        length = self.ladder.length(index, replace(self.wish, max_tokens=most), kept, self.context)
        cap = clamp if length.cap is None else min(length.cap, clamp)
        return Length(min(length.thinking, cap), cap)


def prompt_bound(body: bytes, context: int | None = None, prompts: int = 1) -> int:
    """No fewer tokens than the prompts in a body have: a token of text has at least one byte, and what does
    not fit into its context the backend refuses."""
    bound = len(body) + TEMPLATE_TOKENS
    return bound if context is None else min(bound, prompts * context)
