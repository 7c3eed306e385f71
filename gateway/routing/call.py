"""A request between admission and backend: what was admitted, and what will be sent. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Raw, Struct
from msgspec.structs import replace

from gateway.budget.limits import Limit
from gateway.budget.reservation import Demand, Reservation, TierDemand
from gateway.config.access import Key
from gateway.config.models import ImageTokens, Model
from gateway.config.settings import Settings
from gateway.openai_api.amendments import small_fields
from gateway.openai_api.endpoints import Endpoint
from gateway.openai_api.lengths import held_back, may_pause, model_decides, silences, within_cap
from gateway.openai_api.requests import Fields, Request, encode
from gateway.openai_api.stop_strings import StopStrings, fields_about_stops, stop_strings
from gateway.openai_api.stream_options import with_usage
from gateway.openai_api.tokenizing import count_request, truncated_to
from gateway.routing.blind import Blind
from gateway.routing.decision import Decision
from gateway.routing.plan import RoutingPlan
from gateway.routing.prompt import prompt_bound
from gateway.routing.room import counted_room, estimated_room, estimated_tokens
from gateway.routing.tiers import Length, TierLadder
from gateway.upstream.pool import Pool
from router_model.allocation import PriceTable

_NO_DEMAND = Demand(())
_UNTIL_ABORTED = 8  # tokens of one choice that a backend generates until it notices that nobody reads them
_FASTEST = 1000  # tokens of one choice that a backend generates in a second


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The model that a request names, with its tiers."""

    name: str
    model: Model
    ladder: TierLadder
    pin: str | None
    """The tier in `MODEL:TIER`; None if the name leaves the tier to the gateway."""
    prices: PriceTable | None = None
    """The head's own price table. A budget uses it until it has seen enough requests."""
    constrained: Target | None = None
    """The same for requests with tools or a schema, if these get no thinking budget."""
    unbudgeted: Target | None = None
    """The same for backends that refuse thinking budgets; None if the model is sent none."""

    @property
    def listed(self) -> bool:
        """Whether it has a place of its own in the list of models: a model's only tier has none."""
        return self.pin is None or len(self.ladder.names) > 1


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

    @property
    def enforces_thinking_budget(self) -> bool:
        """Whether the backend is sent a thinking budget, so that we can check whether it was honoured."""
        return self.endpoint.has_template and self.target.ladder.enforces_thinking_budget


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
    unenforced: bool = False
    """The backend refused the thinking budget, so it was not sent."""

    @property
    def enforces_thinking_budget(self) -> bool:
        """Whether the backend is sent a thinking budget, so that we can check whether it was honoured."""
        return self.call.enforces_thinking_budget and not self.unenforced

    @property
    def demand(self) -> Demand:
        """The tokens that the call needs from its budgets."""
        call = self.call
        if not call.limits:
            return _NO_DEMAND
        request, prompt, strict = call.request, 0, False
        for limit in call.limits:
            strict = strict or limit.budget.reserve == "p95"
            if limit.budget.count == "total" and not prompt:
                # of embeddings, the sum over all inputs, of which there may be many
                context = call.context if self.routing else None
                prompt = prompt_bound(call.body, request, self._image, context)
        if self.routing is None:
            return Demand((TierDemand(0),), prompt=prompt)
        return self.routing.demand(
            call.settings.reservations,
            choices=request.choices,
            prompt=prompt,
            strict=strict and not model_decides(request.fields),
        )

    @property
    def thinks(self) -> bool:
        """The model is told to think."""
        return self.decision is not None and self.decision.thinking > 0

    @property
    def _image(self) -> ImageTokens | None:
        """The rule for images of the model's family."""
        return self.call.settings.families[self.call.target.model.family].image

    @property
    def fits(self) -> bool:
        """Whether the prompt surely leaves room for every length that the call may get.

        Also true if nothing can be told, because no context is known, and for a legacy completion, which
        never gets more than a limit of its own or the API's default.
        """
        call, request = self.call, self.call.request
        if self.routing is None or call.context is None or not call.endpoint.has_template:
            return True
        bound = truncated_to(request.fields) or prompt_bound(call.body, request, self._image, call.context)
        longest = call.settings.reservations.longest_answer if call.limits else 0
        return self.routing.fits(call.context - bound, longest)

    def count_request(self) -> bytes | None:
        """What to ask a backend to learn how many tokens the prompt has; None if it could not tell."""
        request = self.call.request
        if request.media or request.embeds or truncated_to(request.fields):
            return None
        return count_request(self.fields())

    def beside(self, prompt: int | None) -> Plan:
        """The plan fitted into the room beside a prompt of so many tokens; None if they must be estimated."""
        call, request, context = self.call, self.call.request, self.call.context
        if context is None:
            return self
        prompt = truncated_to(request.fields) or prompt
        if prompt is not None:
            room = counted_room(prompt, context)
            return self if room is None else self.with_room(room)
        text = len(call.body) - sum(medium.payload for medium in request.media)
        media = estimated_tokens(request.media, self._image, context)
        return self.with_room(estimated_room(text, media, context))

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
            budget = decision.thinking if self.enforces_thinking_budget else self.reservation.max_tokens
            hidden = budget * request.choices
        begun = 0 if self.stops else held_back(request.fields)
        held = (begun + _UNTIL_ABORTED) * request.choices
        pace = _FASTEST * request.choices if may_pause(request.fields) else 0
        return Blind(hidden, held, pace, silences(request.fields))

    @property
    def stops(self) -> StopStrings | None:
        """The client's stop strings, if the gateway applies them, because the model thinks first."""
        call, decision = self.call, self.decision
        if "stop" not in call.request.fields or decision is None or not call.endpoint.has_template:
            return None
        return stop_strings(call.request.fields) if call.target.ladder.thinks(decision.thinking) else None

    @property
    def asks_counts(self) -> bool:
        """Whether the backend is asked for its count in every chunk: one chunk can hold several tokens.

        A budget needs it, and a stream that ends at a stop string has no other count.
        """
        return self.reservation is not None or self.stops is not None

    @property
    def foreseeable(self) -> bool:
        """Whether `granted` needs no more of a reservation of all that is wanted than that it is one."""
        return self.routing is None or not self.routing.choice.draw

    def granted(self, reservation: Reservation) -> Plan:
        """The plan with the tier and the token limit that the budgets granted."""
        routing, decision = self.routing, None
        if routing:
            decision = routing.granted(reservation, self.call.settings.reservations)
        return Plan(self.call, routing, decision, reservation)

    def with_room(self, room: int) -> Plan:
        """The plan with a length that fits `room` completion tokens, which are left beside the prompt.

        A reservation stays as it is: an upper bound of what may be generated.
        """
        if not (self.routing and self.decision) or room < 1:
            return self
        routing = self.routing.with_room(room)
        decision = routing.fitted(self.decision) if self.reservation else routing.decision
        return replace(self, routing=routing, decision=decision)

    def without_budget(self) -> Plan:
        """The plan for a backend that refuses thinking budgets."""
        target, routing, decision = self.call.target, self.routing, self.decision
        if not (target.unbudgeted and routing and decision):
            return self
        return replace(self, decision=routing.without_budget(decision, target.unbudgeted.ladder))

    def without_body(self) -> Plan:
        """The plan of a call that has been encoded for a backend; it keeps the small fields only."""
        request = self.call.request
        kept = small_fields(request.fields) | (fields_about_stops(request.fields) if self.stops else {})
        request = replace(request, fields=kept, prompt="", conversation="", opening=(), metadata=None)
        return replace(self, call=replace(self.call, request=request, body=b""), known_blind=self.blind)

    def fields(self) -> Fields:
        """The fields to send upstream: the client's bytes, except for the model name, the tier and usage."""
        call, decision, request = self.call, self.decision, self.call.request
        stops = self.stops if "stop" in request.fields else None
        counts = self.reservation is not None or stops is not None
        fields = self._with_length(request.fields, decision) if decision else dict(request.fields)
        if request.model != call.pool.served_name:
            fields["model"] = Raw(encode(call.pool.served_name))
        if stops is not None:
            fields.pop("stop", None)
        if self.reservation is not None:
            fields.pop("stream_interval", None)  # a client could have the count in the last chunk only
        if request.stream and (counts or not request.wants_usage):
            fields["stream_options"] = with_usage(fields.get("stream_options"), counts=counts)
        return fields

    def _with_length(self, own: Fields, decision: Decision) -> Fields:
        """A copy of the client's fields with the rung and the length of a decision."""
        call, cap, length = self.call, decision.cap, Length(decision.thinking, decision.cap)
        if call.endpoint.has_template:
            fields = call.target.ladder.apply(own, decision.rung, length)
        else:
            fields = call.target.ladder.clamp(own, length)
        if fields is own:
            fields = dict(own)
        if cap is None:
            return fields
        # Under a budget, send a limit even if the tier has none: nothing beyond it is reserved.
        if self.reservation and self.reservation.capped:
            fields.pop("max_tokens", None)
            fields[call.endpoint.cap_field] = Raw(b"%d" % cap)
        if "min_tokens" in fields:
            fields = within_cap(fields, cap, call.request.client_limits.max_tokens)
        return fields
