"""A request between admission and backend: what was admitted, and what will be sent. No I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as with_changes
from typing import NamedTuple

from msgspec import Raw, Struct
from msgspec.structs import replace

from gateway.budget.limits import Limit
from gateway.budget.reservation import Demand, Reservation, TierDemand
from gateway.config.access import Key
from gateway.config.models import Model
from gateway.config.settings import Settings
from gateway.http.headers import FORWARDED
from gateway.openai_api.endpoints import Endpoint
from gateway.openai_api.lengths import held_back, may_pause, model_decides, silences
from gateway.openai_api.requests import Fields, Request, encode, with_usage
from gateway.routing.decision import Decision
from gateway.routing.plan import RoutingPlan
from gateway.routing.prompt import prompt_bound
from gateway.routing.tiers import Length, TierLadder
from gateway.upstream.pool import Pool
from router_model.allocation import PriceTable

_NO_DEMAND = Demand(())
_UNTIL_ABORTED = 8  # tokens of one choice that a backend generates until it notices that nobody reads them
_FASTEST = 1000  # tokens of one choice that a backend generates in a second
_ABORT_SECONDS = 0.5  # time until a backend has stopped after its client has left, on a busy machine


@dataclass(frozen=True, slots=True)
class Target:
    """The model that a request names, with its tiers."""

    name: str
    model: Model
    ladder: TierLadder
    pin: str | None
    """The tier in `MODEL:TIER`; None if the name leaves the tier to the gateway."""
    prices: PriceTable | None = None
    """The head's own price table. A budget uses it until it has seen enough requests."""


class Call(Struct, frozen=True):  # a Struct, as one is made per request and a frozen dataclass costs 2 µs
    """An admitted request: what the client sends, its key, the model and the budgets that apply."""

    endpoint: Endpoint
    key: Key | None
    headers: Mapping[bytes, bytes]
    request: Request
    body: bytes
    target: Target
    pool: Pool
    context: int | None
    """The model's context length, prompt and completion together; None until a backend has reported it."""
    limits: tuple[Limit, ...]
    """The budgets that the request counts against."""
    settings: Settings
    """Settings of the snapshot that admitted the request."""
    forwards: frozenset[bytes] = FORWARDED
    """The client's headers that may pass to the backend."""

    @property
    def affinity(self) -> str | None:
        """The value of the affinity header, which keeps a session at one replica; None without one."""
        header = self.settings.affinity_header
        if header is None:
            return None
        return self.headers.get(header.lower().encode(), b"").decode("latin-1") or None

    @property
    def enforces_thinking_budget(self) -> bool:
        """Whether the backend is sent a thinking budget, so that we can check whether it was honoured."""
        return self.endpoint.has_template and self.target.ladder.enforces_thinking_budget


class Blind(NamedTuple):
    """Completion tokens of a stream that its client can keep out of sight."""

    reasoning: int = 0
    """Reasoning tokens that are not sent."""
    held: int = 0
    """Tokens that are generated after the last one that passed, whose text is held back or comes too late."""
    pace: int = 0
    """Tokens in a second that may be generated while nothing passes."""
    silent: bool = False
    """Nothing needs to pass before the answer is complete."""

    def unseen(self, silence: float, rate: float) -> int:
        """Tokens that may have been generated after the last ones that passed, until the backend stops.

        silence: seconds since those passed. rate: tokens that passed in a second, over all choices.
        """
        return self.held + math.ceil(max(self.pace, rate) * silence + rate * _ABORT_SECONDS)


_NOT_BLIND = Blind()


class Plan(Struct, frozen=True):
    """How a call will be sent: at the tier of a decision, or without one if the endpoint has no tiers."""

    call: Call
    routing: RoutingPlan | None = None
    """None if the endpoint has no tiers."""
    decision: Decision | None = None
    """The decision; after the reservation, the granted decision."""
    reservation: Reservation | None = None
    known_blind: Blind | None = None
    """`blind`, once the fields that it follows from are gone."""

    @property
    def demand(self) -> Demand:
        """The tokens that the call needs from its budgets."""
        call = self.call
        if not call.limits:
            return _NO_DEMAND
        request, settings = call.request, call.settings
        budgets = [limit.budget for limit in call.limits]
        prompt = 0
        if any(budget.count == "total" for budget in budgets):
            image = settings.families[call.target.model.family].image
            # of embeddings, the sum over all inputs, of which there may be many
            context = call.context if self.routing else None
            prompt = prompt_bound(call.body, request, image, context)
        if self.routing is None:
            return Demand((TierDemand(0),), prompt=prompt)
        return self.routing.demand(
            settings.reservations,
            choices=request.choices,
            prompt=prompt,
            strict=any(budget.reserve == "p95" for budget in budgets) and not model_decides(request.fields),
        )

    @property
    def thinks(self) -> bool:
        """The model is told to think."""
        return self.decision is not None and self.decision.thinking > 0

    @property
    def blind(self) -> Blind:
        """What a stream of the call may spend without showing it."""
        if self.known_blind is not None:
            return self.known_blind
        request, decision = self.call.request, self.decision
        if not (self.reservation and decision and request.stream):
            return _NOT_BLIND
        hidden = 0
        if not request.shows_reasoning:
            budget = decision.thinking if self.call.enforces_thinking_budget else self.reservation.max_tokens
            hidden = budget * request.choices
        held = (held_back(request.fields) + _UNTIL_ABORTED) * request.choices
        pace = _FASTEST * request.choices if may_pause(request.fields) else 0
        return Blind(hidden, held, pace, silences(request.fields))

    def granted(self, reservation: Reservation | None) -> Plan:
        """The plan with the tier and the token limit that the budgets granted."""
        if reservation is None:
            return self
        decision = None
        if self.routing:
            decision = self.routing.granted(reservation, self.call.settings.reservations)
        return replace(self, decision=decision, reservation=reservation)

    def without_body(self) -> Plan:
        """The plan of a call that has been encoded for a backend."""
        request = with_changes(self.call.request, fields={}, prompt="", conversation="", metadata=None)
        return replace(self, call=replace(self.call, request=request, body=b""), known_blind=self.blind)

    def fields(self) -> Fields:
        """The fields to send upstream: the client's bytes, except for the model name, the tier and usage."""
        call, decision = self.call, self.decision
        request, endpoint, ladder = call.request, call.endpoint, call.target.ladder
        fields = request.fields
        if decision:
            length = Length(decision.thinking, decision.cap)
            if endpoint.has_template:
                fields = ladder.apply(fields, decision.rung, length)
            else:
                fields = ladder.clamp(fields, length)
            # Under a budget, send a limit even if the tier has none: nothing beyond it is reserved.
            if decision.cap is not None and self.reservation and self.reservation.capped:
                others = {name: value for name, value in fields.items() if name != "max_tokens"}
                fields = others | {endpoint.cap_field: Raw(b"%d" % decision.cap)}
        if request.model != call.pool.served_name:
            fields = fields | {"model": Raw(encode(call.pool.served_name))}
        # Under a budget, ask for the token count in every chunk, because one chunk can hold several tokens.
        counts = self.reservation is not None
        if counts and "stream_interval" in fields:  # a client could have the count in the last chunk only
            fields = {name: value for name, value in fields.items() if name != "stream_interval"}
        if request.stream and (counts or not request.wants_usage):
            fields = fields | {"stream_options": with_usage(fields.get("stream_options"), counts=counts)}
        return fields
