"""Turns a routing decision into a budget demand, and the reservation into the granted decision. No I/O."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gateway.budget.reservation import Demand, Reservation, TierDemand
from gateway.config.budgets import Reservations
from gateway.routing.decision import Decision
from gateway.routing.exploration import Draw, propensity
from gateway.routing.outline import Outline, Terms
from gateway.routing.policy import Choice
from gateway.routing.tiers import Length, TierLadder
from router_model.allocation import PriceTable
from router_model.predictor import Prediction


class RoutingPlan(Struct, frozen=True):
    """A decision with what is needed to shorten it for a budget."""

    outline: Outline
    prediction: Prediction
    choice: Choice
    decision: Decision
    prices: PriceTable | None = None
    """The head's own price table. A budget uses it until it has seen enough requests."""
    unit: str | None = None
    """Who or what stays in one arm of the hold-out; None without one."""

    @property
    def span(self) -> range:
        """Positions of the rungs that the request could have got, by choice, by chance or by a budget."""
        return self.outline.span(self.decision.rung, self.choice.eligible.stop)

    def candidates(self, wanted: int) -> tuple[int, ...]:
        """The rungs that a budget may grant if this one is wanted, which comes first."""
        return self.outline.candidates(wanted, self.span.start)

    def terms(self, reservations: Reservations) -> Terms:
        """What the budgets must know, apart from the head's estimates."""
        return self.outline.terms(self.decision.rung, self.choice.eligible.stop, reservations)

    def estimates(self, reservations: Reservations) -> tuple[Sequence[float], Sequence[float]]:
        """P(right) and the expected completion tokens of one choice, by rung that the request could get."""
        span = self.terms(reservations).span
        return (
            self.prediction.correct[span.start : span.stop],
            self.prediction.tokens[span.start : span.stop],
        )

    def fits(self, room: int, longest_answer: int) -> bool:
        """Whether a budget may grant any candidate in full if the context leaves `room` completion tokens.

        longest_answer: tokens reserved for an answer that has no limit of its own; 0 if none are reserved.
        """
        outline = self.outline
        if room >= outline.whole + longest_answer:
            return True  # the usual case, which costs nothing
        if room < 1:
            return False
        within = outline.within(room)
        for index in self.candidates(self.decision.rung):
            length = outline.length(index)
            if within.length(index) != length or within.fitting(index) != index:
                return False
            if length.max_tokens is None and length.thinking + longest_answer > room:
                return False
        return True

    def with_room(self, room: int) -> RoutingPlan:
        """The plan with a rung and lengths that fit `room` completion tokens."""
        plan = replace(self, outline=self.outline.within(room))
        decision, draw = plan.fitted(self.decision), self.choice.draw
        if draw and decision.rung != self.decision.rung:
            odds = propensity(draw, decision.rung, plan.outline.fitting)
            decision = replace(decision, propensity=odds)
        return replace(plan, decision=decision)

    def fitted(self, decision: Decision) -> Decision:
        """A decision, granted by the budgets or not yet, with a rung and a length that fit the room."""
        index = self.outline.fitting(decision.rung)
        length, room = self.outline.length(index), self.outline.room
        caps = [cap for cap in (decision.cap, length.max_tokens) if cap is not None]
        if decision.cap is not None and length.max_tokens is None and room is not None:
            caps.append(room)  # a budget caps a tier that has no limit of its own
        changes: dict[str, Any] = {
            "thinking": min(decision.thinking, length.thinking),
            "cap": min(caps, default=None),
        }
        if index != decision.rung:
            changes |= self._shortened(decision, index) | {"reason": "context"}
        return replace(decision, **changes)

    def without_budget(self, decision: Decision, unbudgeted: TierLadder) -> Decision:
        """A decision for a backend that refuses thinking budgets, within the length that was planned.

        Nothing ends a thought before the length limit, which leaves no answer. So a length that is short for
        a thought goes without, if the family can switch thinking off.

        unbudgeted: the ladder for such backends.
        """
        outline = self.outline
        if not decision.thinking or outline.ladder.thinks(0):
            return decision
        most = decision.cap if decision.cap is not None else outline.limits.max_tokens
        limits = replace(outline.limits, max_tokens=most)
        tier = outline.ladder.rungs[decision.rung].tier
        length = unbudgeted.length(tier, limits, outline.guaranteed, outline.context, outline.room)
        return decision if length.thinking else replace(decision, thinking=0)

    def tier_demand(self, index: int, most: int) -> TierDemand:
        """The need of a rung that may generate at most so many completion tokens."""
        prediction = self.prediction
        likely = math.ceil(prediction.p95[index]) if prediction.p95 else None
        expected = round(prediction.tokens[index])
        return TierDemand(most, likely, min(most, expected))

    def demand(
        self, reservations: Reservations, *, choices: int, prompt: int = 0, strict: bool = False
    ) -> Demand:
        """What the ledger must know to reserve tokens: the need of every candidate, and how far to shorten.

        prompt: upper bound on the prompt's tokens. strict: the client decides the length, so that the head's
        percentiles do not hold.
        """
        terms = self.terms(reservations)
        return Demand(
            tuple(map(self.tier_demand, terms.candidates, terms.most)),
            terms.longest,
            choices,
            prompt,
            terms.minimum,
            terms.soft,
            strict,
        )

    def granted(self, reservation: Reservation, reservations: Reservations) -> Decision:
        """The decision as the budgets granted it.

        They may have granted a cheaper tier or fewer tokens, or set a token limit where the tier has none.
        """
        decision, outline, draw = self.decision, self.outline, self.choice.draw
        limited = decision.cap is not None or not reservation.capped
        if limited and not (reservation.shortened or draw or outline.room is not None):
            return decision  # the usual case, which costs nothing
        index = self.terms(reservations).candidates[reservation.tier]
        length = outline.length(index)
        if reservation.clamp:
            length = self._cut(index, reservation.clamp)
        elif length.max_tokens is None and reservation.capped:
            length = Length(length.thinking, reservation.max_tokens)
        changes: dict[str, Any] = {"thinking": length.thinking, "cap": length.max_tokens}
        if draw:
            granted = None if reservation.clamp else index
            changes["propensity"] = self._propensity(draw, granted, reservation, reservations)
        if reservation.shortened:
            changes |= self._shortened(decision, index) | {"reason": "budget"}
        return replace(decision, **changes)

    def _shortened(self, decision: Decision, index: int) -> dict[str, Any]:
        """The fields of a decision that change with its rung."""
        first = decision.wanted is None or decision.wanted_rung is None
        return {
            "tier": self.outline.ladder.tier_at(index),
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
            need = self.tier_demand(index, self.outline.max_tokens(index, reservations.longest_answer))
            return reservation.demand.fits(reservation.limits, need, reply.rooms)

        room = {index for index in self.span if fits(index)}
        return propensity(draw, granted, lambda drawn: _first(self.candidates(drawn), room))

    def _cut(self, index: int, clamp: int) -> Length:
        """The length of a tier cut to `clamp` completion tokens, which always cover the guarantee."""
        outline = self.outline
        kept = outline.kept(index)
        # `length` grants guaranteed reasoning on top of the client's limit, so subtract it first.
        theirs = outline.limits.max_tokens
        most = clamp - kept if theirs is None else min(clamp - kept, theirs)
        limits = replace(outline.limits, max_tokens=most)
        length = outline.ladder.length(index, limits, kept, outline.context, outline.room)
        max_tokens = clamp if length.max_tokens is None else min(length.max_tokens, clamp)
        return Length(min(length.thinking, max_tokens), max_tokens)


def _first(candidates: Iterable[int], room: Container[int]) -> int | None:
    """The first candidate with room; None if none has it."""
    return next((index for index in candidates if index in room), None)
