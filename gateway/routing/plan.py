"""Turns a routing decision into a budget demand, and the reservation into the granted decision. No I/O."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
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
    room: int | None = None
    """Completion tokens that the context leaves beside the prompt; None while nobody had to find out."""

    @property
    def guaranteed(self) -> int:
        """Reasoning tokens that a floor or a fixed tier promises, so that no budget may take them away."""
        guarantee = self.bounds.guarantee
        return 0 if guarantee is None else self.ladder.thinking[guarantee]

    @property
    def span(self) -> range:
        """Positions of the rungs that the request could have got, by choice, by chance or by a budget."""
        wanted, eligible = self.decision.rung, self.choice.eligible
        if self.bounds.fixed:
            return range(wanted, wanted + 1)
        low = self.fitting(self.bounds.floor.index) if self.bounds.floor else 0
        return range(min(low, wanted), max(wanted + 1, eligible.stop))

    def candidates(self, wanted: int) -> tuple[int, ...]:
        """The rungs that a budget may grant if this one is wanted: itself, then the named tiers below.

        Only named tiers, because a message to Redis holds the amounts of every candidate in every window.
        If the context has no room for the wanted rung, the first one that it has room for takes its place.
        """
        wanted = self.fitting(wanted)
        below = (index for index in reversed(self.ladder.named) if self.span.start <= index < wanted)
        return (wanted, *(index for index in below if self.fitting(index) == index))

    def estimates(self, choices: int) -> tuple[list[float], list[float]]:
        """P(right) and the expected completion tokens of all choices, by rung that the request could get."""
        rungs = slice(self.span.start, self.span.stop)
        tokens = [count * choices for count in self.prediction.tokens[rungs]]
        return list(self.prediction.correct[rungs]), tokens

    def length(self, index: int) -> Length:
        return self.ladder.length(index, self.client_limits, self.guaranteed, self.context, self.room)

    def fits(self, room: int, longest_answer: int) -> bool:
        """Whether a budget may grant any candidate in full if the context leaves `room` completion tokens.

        longest_answer: tokens reserved for an answer that has no limit of its own; 0 if none are reserved.
        """
        if room >= self.ladder.whole + longest_answer and not self.client_limits.min_tokens:
            return True  # the usual case, which costs nothing
        if room < 1:
            return False
        plan = replace(self, room=room)
        for index in self.candidates(self.decision.rung):
            length = self.length(index)
            if plan.length(index) != length or plan.fitting(index) != index:
                return False
            if length.max_tokens is None and length.thinking + longest_answer > room:
                return False
        return True

    def with_room(self, room: int) -> RoutingPlan:
        """The plan with a rung and lengths that fit `room` completion tokens."""
        plan = replace(self, room=room)
        decision, draw = plan.fitted(self.decision), self.choice.draw
        if draw and decision.rung != self.decision.rung:
            odds = propensity(draw, decision.rung, plan.fitting)
            decision = with_fields(decision, propensity=odds)
        return replace(plan, decision=decision)

    def fitted(self, decision: Decision) -> Decision:
        """A decision, granted by the budgets or not yet, with a rung and a length that fit the room."""
        index = self.fitting(decision.rung)
        length = self.length(index)
        caps = [cap for cap in (decision.cap, length.max_tokens) if cap is not None]
        if decision.cap is not None and length.max_tokens is None and self.room is not None:
            caps.append(self.room)  # a budget caps a tier that has no limit of its own
        changes: dict[str, Any] = {
            "thinking": min(decision.thinking, length.thinking),
            "cap": min(caps, default=None),
        }
        if index != decision.rung:
            changes |= self._shortened(decision, index) | {"reason": "context"}
        return with_fields(decision, **changes)

    def without_budget(self, decision: Decision, unbudgeted: TierLadder) -> Decision:
        """A decision for a backend that refuses thinking budgets, within the length that was planned.

        Nothing ends a thought before the length limit, which leaves no answer. So a length that is short for
        a thought goes without, if the family can switch thinking off.

        unbudgeted: the ladder for such backends.
        """
        if not decision.thinking or self.ladder.thinks(0):
            return decision
        most = decision.cap if decision.cap is not None else self.client_limits.max_tokens
        limits = replace(self.client_limits, max_tokens=most)
        tier = self.ladder.rungs[decision.rung].tier
        length = unbudgeted.length(tier, limits, self.guaranteed, self.context, self.room)
        return decision if length.thinking else with_fields(decision, thinking=0)

    def fitting(self, index: int) -> int:
        """The rung itself, or if the context has no room for its thinking, the longest tier that has.

        Where the backend takes a thinking budget, that is shortened instead. Elsewhere a thought as long as
        the tier's would leave no room for the answer. A floor does not help: what does not fit does not fit.
        """
        if self.room is None or self.ladder.enforces_thinking_budget:
            return index
        lower = [at for at in reversed(self.ladder.named) if at < index]
        whole = replace(self, room=None)
        fit = (at for at in (index, *lower) if self.length(at).thinking >= whole.length(at).thinking)
        return next(fit, self.ladder.named[0])

    def max_tokens(self, index: int, longest_answer: int) -> int:
        """The most completion tokens that a rung may generate."""
        length = self.length(index)
        if length.max_tokens is not None:
            return length.max_tokens
        most = length.thinking + longest_answer
        return min(most, self.room or self.context or most)

    def tier_demand(self, index: int, longest_answer: int) -> TierDemand:
        max_tokens, prediction = self.max_tokens(index, longest_answer), self.prediction
        likely = math.ceil(prediction.p95[index]) if prediction.p95 else None
        return TierDemand(max_tokens, likely, min(round(prediction.tokens[index]), max_tokens))

    def demand(
        self, reservations: Reservations, *, choices: int, prompt: int = 0, strict: bool = False
    ) -> Demand:
        """What the ledger must know to reserve tokens: the need of every candidate, and how far to shorten.

        prompt: upper bound on the prompt's tokens. strict: the client decides the length, so that the head's
        percentiles do not hold.
        """
        candidates = self.candidates(self.decision.rung)
        demands = tuple(self.tier_demand(index, reservations.longest_answer) for index in candidates)
        kept = self._kept(candidates[-1])
        return Demand(
            tiers=demands,
            longest=self.max_tokens(self.span.stop - 1, reservations.longest_answer),
            choices=choices,
            prompt=prompt,
            minimum=min(kept + reservations.shortest_answer, demands[-1].max_tokens),
            soft=not kept,
            strict=strict,
        )

    def granted(self, reservation: Reservation, reservations: Reservations) -> Decision:
        """The decision as the budgets granted it.

        They may have granted a cheaper tier or fewer tokens, or set a token limit where the tier has none.
        """
        index = self.candidates(self.decision.rung)[reservation.tier]
        length = self.length(index)
        if reservation.clamp:
            length = self._cut(index, reservation.clamp)
        elif length.max_tokens is None and reservation.capped:
            length = Length(length.thinking, reservation.max_tokens)
        changes: dict[str, Any] = {"thinking": length.thinking, "cap": length.max_tokens}
        if self.choice.draw:
            granted = None if reservation.clamp else index
            changes["propensity"] = self._propensity(self.choice.draw, granted, reservation, reservations)
        if reservation.shortened:
            changes |= self._shortened(self.decision, index) | {"reason": "budget"}
        return with_fields(self.decision, **changes)

    def _shortened(self, decision: Decision, index: int) -> dict[str, Any]:
        """The fields of a decision that change with its rung."""
        first = decision.wanted is None or decision.wanted_rung is None
        return {
            "tier": self.ladder.tier_at(index),
            "rule": None,
            "rung": index,
            "rung_correct": self.prediction.correct[index],
            "rung_tokens": self.prediction.tokens[index],
            "wanted": decision.tier if first else decision.wanted,
            "wanted_rung": decision.rung if first else decision.wanted_rung,
        }

    def _propensity(
        self, draw: Draw, granted: int | None, reservation: Reservation, reservations: Reservations
    ) -> float:
        """The probability of the granted rung, which the log needs to compare policies later.

        The budget can turn several draws into the same rung, so their probabilities add up. What it would
        have made of the other draws follows from the room that the windows had.

        granted: None if no candidate fitted as a whole, so that the cheapest one was cut.
        """
        reply = reservation.reply
        if not reply:  # Redis was away: `degrade` grants the cheapest tier whatever was drawn
            return 1.0 if reservation.fallback == "degrade" else draw.probabilities[self.decision.rung]

        def fits(index: int) -> bool:
            need = self.tier_demand(index, reservations.longest_answer)
            return reservation.demand.fits(reservation.limits, need, reply.rooms)

        room = {index for index in self.span if fits(index)}
        return propensity(draw, granted, lambda drawn: _first(self.candidates(drawn), room))

    def _kept(self, index: int) -> int:
        """Guaranteed reasoning tokens of a rung, as far as the context has room for them."""
        kept = min(self.guaranteed, self.ladder.thinking[index])
        return kept if self.room is None else min(kept, self.length(index).thinking)

    def _cut(self, index: int, clamp: int) -> Length:
        """The length of a tier cut to `clamp` completion tokens, which always cover the guarantee."""
        kept = self._kept(index)
        # `length` grants guaranteed reasoning on top of the client's limit, so subtract it first.
        theirs = self.client_limits.max_tokens
        most = clamp - kept if theirs is None else min(clamp - kept, theirs)
        limits = replace(self.client_limits, max_tokens=most)
        length = self.ladder.length(index, limits, kept, self.context, self.room)
        max_tokens = clamp if length.max_tokens is None else min(length.max_tokens, clamp)
        return Length(min(length.thinking, max_tokens), max_tokens)


def _first(candidates: Iterable[int], room: Container[int]) -> int | None:
    """The first candidate with room; None if none has it."""
    return next((index for index in candidates if index in room), None)
