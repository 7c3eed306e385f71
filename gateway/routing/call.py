"""One request on its way through the gateway: as it was admitted, and as it will be sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msgspec import Raw

from gateway.budget.limits import Limit
from gateway.budget.reservation import Demand, Reservation, TierDemand
from gateway.config.access import Key
from gateway.config.models import Model
from gateway.config.settings import Settings
from gateway.openai_api.endpoints import Endpoint
from gateway.openai_api.requests import Fields, Request, encode, with_usage
from gateway.routing.decision import Decision
from gateway.routing.plan import RoutingPlan, prompt_bound
from gateway.routing.tiers import Length, TierLadder
from gateway.upstream.pool import Pool
from router_model.allocation import PriceTable


@dataclass(frozen=True, slots=True)
class Target:
    """What a request names: a model, its tiers, and the tier that it pins."""

    name: str
    model: Model
    ladder: TierLadder
    pin: str | None
    prices: PriceTable | None = None
    """What tokens buy on the head's own prompts. A budget uses it until it has seen prompts of its own."""


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted request: what is asked, by whom, of which model, within which budgets."""

    endpoint: Endpoint
    key: Key | None
    headers: Mapping[bytes, bytes]
    request: Request
    body: bytes
    target: Target
    pool: Pool
    context: int | None
    """Tokens that prompt and completion may have together, as far as the backends have said."""
    limits: tuple[Limit, ...]
    settings: Settings
    """Of the snapshot that admitted the request."""

    @property
    def affinity(self) -> str | None:
        """The header value that keeps a session at one replica; None where there is none."""
        header = self.settings.affinity_header
        if header is None:
            return None
        return self.headers.get(header.lower().encode(), b"").decode("latin-1") or None

    @property
    def enforces_thinking_budget(self) -> bool:
        """Whether the backend is told a thinking budget, so that one can judge whether it held."""
        return self.endpoint.has_template and self.target.ladder.enforces_thinking_budget


@dataclass(frozen=True, slots=True)
class Plan:
    """How a call will be sent: with the tier of a decision, or, where no tiers apply, as it came."""

    call: Call
    routing: RoutingPlan | None = None
    decision: Decision | None = None
    """What was decided; after the reservation, what was granted."""
    reservation: Reservation | None = None

    @property
    def demand(self) -> Demand:
        """What the call asks of its budgets."""
        call = self.call
        if not call.limits:
            return Demand(())
        if self.routing is None:
            return Demand((TierDemand(0),), prompt=prompt_bound(call.body))  # of any number of inputs
        return self.routing.demand(
            call.settings.reservations,
            choices=call.request.choices,
            body=call.body,
            prompts=call.request.prompts,
        )

    def granted(self, reservation: Reservation | None) -> Plan:
        """The plan with the tier and the cap that the budgets granted."""
        if reservation is None:
            return self
        decision = self.routing.granted(reservation) if self.routing else None
        return replace(self, decision=decision, reservation=reservation)

    def fields(self) -> Fields:
        """The fields sent upstream: the client's own bytes, but for the model's name, the tier and usage."""
        call, decision = self.call, self.decision
        request, endpoint, ladder = call.request, call.endpoint, call.target.ladder
        fields = request.fields
        if decision:
            length = Length(decision.thinking, decision.cap)
            if endpoint.has_template:
                fields = ladder.apply(fields, decision.tier, length)
            else:
                fields = ladder.clamp(fields, length)
            # a cap even where the tier sets none, as no more than that was reserved
            if decision.cap is not None and self.reservation and self.reservation.strict:
                others = {name: value for name, value in fields.items() if name != "max_tokens"}
                fields = others | {endpoint.cap_field: Raw(b"%d" % decision.cap)}
        if request.model != call.pool.served_name:
            fields = fields | {"model": Raw(encode(call.pool.served_name))}
        # under a budget every chunk must say how many tokens there were, as one chunk can hold several
        counts = self.reservation is not None
        if request.stream and (counts or not request.wants_usage):
            fields = fields | {"stream_options": with_usage(fields.get("stream_options"), counts=counts)}
        return fields
