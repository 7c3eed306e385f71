"""A request as it is sent, and as it is sent again when the backend refuses a part of it. No I/O.

Only what the gateway added is ever changed: a field that the client sent stays, and so does a length limit
that is the client's own. A request that is sent again never asks for more tokens than were reserved.
"""

from __future__ import annotations

from msgspec.structs import replace

from gateway.openai_api.amendments import (
    AS_PLANNED,
    SMALL_FIELD,
    Amendment,
    additions,
    any_at,
    counts_asked_for,
    refused_of,
    with_lower_minimum,
    without_refused,
)
from gateway.openai_api.large_requests import cut
from gateway.openai_api.lengths import least_tokens
from gateway.openai_api.refusals import Refusal
from gateway.openai_api.requests import Fields, encode
from gateway.routing.call import Plan

_MOST_TIMES = 4
"""How often a replica is asked again for one request."""


class Draft:
    """The request of one plan."""

    __slots__ = ("_planned", "plan")

    def __init__(self, plan: Plan) -> None:
        """The plan of a large body is one `without_body`."""
        self._planned = plan
        self.plan = plan
        """The plan as the backend was last sent it."""

    def amended(self, amendment: Amendment, refusal: Refusal, size: int) -> Amendment | None:
        """How to ask again after a refusal; None if it concerns nothing that the gateway added.

        A backend is asked again at most once for the length, and four times in all, as some name only the
        first of several fields. size: bytes of the request.
        """
        if amendment.times >= _MOST_TIMES:
            return None
        if not refusal.too_long:
            amended = self._with_fewer_fields(amendment, refusal)
        elif amendment.room is None and self._limits_length:
            amended = self._shorter(amendment, refusal, size)
        else:
            amended = None
        return replace(amended, times=amendment.times + 1) if amended else None

    def written(self, amendment: Amendment, body: bytes) -> bytes:
        """The body of the request with an amendment. `body` is the body as planned.

        It takes long for a large body, which is read once more instead of being kept twice.
        """
        self.plan = self._planned
        if amendment == AS_PLANNED:
            return body
        if amendment.room is not None:
            self.plan = self.plan.with_room(amendment.room)
        if any_at(amendment.without, self.plan.call.target.ladder.budget_fields):
            self.plan = self.plan.without_budget()
        fields = self._fields(amendment)
        self.plan = self._as_sent(fields)
        if not self.plan.call.body:
            fields |= _large_fields(body, self._planned.fields())
        return encode(fields)

    @property
    def _limits_length(self) -> bool:
        """Whether the length limit that is sent is not the client's own."""
        decision = self.plan.decision
        own = self.plan.call.request.client_limits.max_tokens
        return decision is not None and decision.cap is not None and decision.cap != own

    @property
    def _least(self) -> int:
        """The client's `min_tokens`; 0 without one that its own `max_tokens` allows."""
        request = self.plan.call.request
        return least_tokens(request.fields, request.client_limits.max_tokens)

    def _with_fewer_fields(self, amendment: Amendment, refusal: Refusal) -> Amendment | None:
        refused = refused_of(additions(self._fields(amendment), self._own), refusal)
        if not refused:
            return None
        lasts = refusal.lasting and "chat_template" not in self._own  # which may refuse whatever it likes
        lasting = amendment.lasting | (refused if lasts else frozenset())
        return replace(amendment, without=amendment.without | refused, lasting=lasting)

    def _shorter(self, amendment: Amendment, refusal: Refusal, size: int) -> Amendment | None:
        """The amendment for a completion that does not fit beside the prompt.

        If the backend did not count the prompt to its end, the limit is left out: the backend then ends the
        completion where its context ends. If that could be beyond what is allowed, it is estimated instead.
        """
        room, cap = refusal.room, (self.plan.decision and self.plan.decision.cap) or 0
        capped = room is not None or not self._may_fill_context(refusal)
        room = refusal.likely_room(size) if room is None else room
        return replace(amendment, room=room, capped=capped) if 0 < room < cap else None

    def _may_fill_context(self, refusal: Refusal) -> bool:
        """Whether a completion without a limit stays within the client's limit and the reservation.

        A refusal that says how long the prompt is at least says how much the context leaves at most.
        """
        plan = self.plan
        if not plan.call.endpoint.has_template:  # without a limit, a legacy completion has 16 tokens
            return False
        most = [] if plan.reservation is None else [plan.reservation.max_tokens]
        if (own := plan.call.request.client_limits.max_tokens) is not None:
            most.append(own)
        if not most:
            return True
        proven = refusal.most_room if "chat_template" not in self._own else None  # which may raise any text
        return proven is not None and proven <= min(most)

    @property
    def _own(self) -> Fields:
        """The client's fields, without the one that stands for its wish in another dialect."""
        fields = self._planned.call.request.fields
        if "reasoning" in fields and "include_reasoning" in fields:
            return {name: value for name, value in fields.items() if name != "include_reasoning"}
        return fields

    def _fields(self, amendment: Amendment) -> Fields:
        fields = self.plan.fields()
        if not amendment.capped:
            cap = self.plan.call.endpoint.cap_field
            fields = {name: value for name, value in fields.items() if name != cap}
        if self._least and amendment.room is not None:
            fields = with_lower_minimum(fields)
        return without_refused(fields, self._own, amendment.without)

    def _as_sent(self, fields: Fields) -> Plan:
        """The plan, with what follows from the fields that are missing."""
        plan, request = self.plan, self.plan.call.request
        places = plan.call.target.ladder.budget_fields
        budgeted = not places.isdisjoint(additions(fields, self._own))
        plan = replace(plan, unenforced=not budgeted)
        if plan.reservation is None or not request.stream:
            return plan
        blind = plan.blind
        if not plan.enforces_thinking_budget and blind.reasoning:
            blind = blind._replace(reasoning=plan.reservation.most)
        if not counts_asked_for(fields):
            # A chunk may hold several tokens, so chunks say too little. Only a total at the end counts.
            blind = blind._replace(silent=True)
        return replace(plan, known_blind=blind)


def _large_fields(body: bytes, kept: Fields) -> Fields:
    """The fields of a large body that its plan has not kept."""
    return {
        name: value
        for name, value in cut(body, ()).fields.items()
        if name not in kept or len(memoryview(value)) > SMALL_FIELD
    }
