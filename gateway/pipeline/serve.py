"""The path of one request: admit, plan, reserve, forward, relay, settle."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from gateway.budget.ledger import Ledger
from gateway.budget.reservation import Demand, Outcome, Reservation
from gateway.budget.waiting import Turn
from gateway.errors import BackendTimeout, ClientClosed
from gateway.http.exchange import Exchange
from gateway.http.headers import forwarded
from gateway.openai_api.endpoints import Endpoint
from gateway.openai_api.large_requests import LARGE_BODY, slow_to_parse
from gateway.openai_api.lengths import begins_late, may_hold_back
from gateway.openai_api.requests import Request, encode
from gateway.openai_api.stopped_responses import LONGEST_CUT
from gateway.pipeline.relay import large_bodies, relay
from gateway.routing.blind import Blind
from gateway.routing.call import Call, Plan
from gateway.routing.drafts import Draft
from gateway.routing.plan import RoutingPlan
from gateway.routing.senders import Sender
from gateway.snapshot import Snapshot
from gateway.telemetry.record import AskedPrompt, Record
from gateway.upstream.dispatch import Upstream
from gateway.upstream.embedding import Embeddings
from gateway.upstream.prompt_counts import PromptCounts
from gateway.upstream.request import UpstreamRequest
from gateway.upstream.response import UpstreamResponse

if TYPE_CHECKING:
    from gateway.evidence.shadows.shadows import ShadowDraw, Shadows

_NOT_BLIND = Blind()


class Pipeline:
    """Serves requests with the snapshot of the configuration in use."""

    def __init__(self, snapshot: Snapshot, upstream: Upstream, ledger: Ledger) -> None:
        self.snapshot = snapshot
        """Replaced by a reload. Take it once per request."""
        self.keeps_evidence = False
        """Records get what the store of evidence needs of the prompt."""
        self._granted_all = True
        """The last request under a budget got what it wanted."""
        self._upstream = upstream
        self._ledger = ledger
        self.shadows: Shadows | None = None
        """Asks some requests again, where there is a store of evidence."""
        self.embeddings = Embeddings(upstream)
        self._counts = PromptCounts(upstream)

    async def serve(self, exchange: Exchange, record: Record, endpoint: Endpoint) -> None:
        """Serve one request from a backend.

        It is cancelled when the client disconnects.

        Raises: GatewayError, which the caller turns into a response.
        """
        snapshot = self.snapshot  # taken once: a reload must not change the rules under a request
        sender = snapshot.sender(exchange.head)  # first: no body of an unknown client is read
        record.key, record.counts = sender.name, endpoint.counts
        read = await read_request(exchange, endpoint)
        record.admitted = time.perf_counter()
        call = snapshot.call(endpoint, sender.key, exchange.headers, *read)
        del read  # it may be large
        record.model, record.stream = call.target.name, call.request.stream
        record.choices = call.request.choices
        plan = await self.plan(call, snapshot, explore=True)  # may wait for an embedding of the prompt
        demand = plan.demand
        if plan.routing is not None:
            record.decision = plan.decision
            record.sends_thinking_budget = call.enforces_thinking_budget
            record.decision_seconds = time.perf_counter() - record.admitted
            if self.keeps_evidence:
                request, key = call.request, sender.key
                team = key.team if key else None
                record.asked = AskedPrompt(request.prompt, request.opening, team, plan.routing.unit)
        reservation = sent = None
        drawn = self._draw(plan, snapshot, sender, record)
        if call.limits:
            reservation, plan, sent = await self._reserve(plan, demand, sender, exchange, record)
        try:
            if sent is None:
                sent = _upstream_request(plan, sender, exchange, record)
            record.reservation, record.decision = reservation, plan.decision
            record.overhead = time.perf_counter() - record.admitted
            if len(call.body) > LARGE_BODY:
                # What is sent is a copy of the body. Keep the body itself no longer.
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(large_bodies, sent.forget_received)
                plan = plan.without_body()
                call = plan.call
            sent.draft = draft = Draft(plan)
            await self._forward(exchange, record, sent, draft, drawn)
        except BaseException as error:
            self._failed(reservation, drawn, error)
            raise
        if reservation is not None:
            self._ledger.end(reservation, None)
        # Tokens and slot are free. The client may take its time to read the rest.
        if not exchange.finished:
            await exchange.finish()
        if drawn is not None:
            drawn.answered(record)

    def _failed(
        self, reservation: Reservation | None, drawn: ShadowDraw | None, error: BaseException
    ) -> None:
        """End what a request holds that has failed, or whose client has left."""
        if drawn is not None:
            drawn.lost()
        if reservation is not None:
            self._ledger.end(reservation, error)

    def _draw(self, plan: Plan, snapshot: Snapshot, sender: Sender, record: Record) -> ShadowDraw | None:
        """Draw the request to be asked again, by chance."""
        if self.shadows is None:
            return None
        drawn = self.shadows.draw(plan, snapshot, sender.passing, sender.name or "")
        record.shadow = drawn is not None
        return drawn

    async def stop(self) -> None:
        """Drop the shadow requests under way."""
        if self.shadows is not None:
            await self.shadows.stop()

    def shadow_terms(self, plan: Plan, snapshot: Snapshot) -> dict[str, object] | None:
        """How a request of this plan may be asked again; None if it never is."""
        return self.shadows.terms(plan, snapshot) if self.shadows is not None else None

    async def _reserve(
        self, plan: Plan, demand: Demand, sender: Sender, exchange: Exchange, record: Record
    ) -> tuple[Reservation, Plan, UpstreamRequest | None]:
        """Reserve tokens, and write the request for the backend while Redis decides.

        Returns what was granted, and the request; None in its place if it is still to be written, because it
        gets less than it wants, or may well.
        """
        call, queue = plan.call, plan.call.settings.queue
        foreseen = self._granted_all and plan.foreseeable and len(call.body) <= LARGE_BODY
        ready: tuple[Plan, UpstreamRequest] | None = None

        def meanwhile(wanted: Reservation) -> None:
            nonlocal ready
            if foreseen:
                granted = plan.granted(wanted)
                ready = granted, _upstream_request(granted, sender, exchange, record)
            self._note(call, plan.routing, demand)

        turn = Turn(queue.seconds, queue.requests, sender.name)
        reservation = await self._ledger.begin(call.limits, demand, turn, meanwhile)
        self._granted_all = not reservation.shortened
        if ready is not None and ready[0].reservation is reservation:
            return reservation, *ready
        return reservation, plan.granted(reservation), None

    async def _forward(
        self,
        exchange: Exchange,
        record: Record,
        request: UpstreamRequest,
        draft: Draft,
        drawn: ShadowDraw | None,
    ) -> None:
        """Send a request, pass its response on to the client, and note what became of it."""

        heard = None if drawn is None else drawn.heard

        def pass_on(response: UpstreamResponse) -> Coroutine[None, None, None]:
            record.answered, record.decision = True, draft.plan.decision
            record.sends_thinking_budget &= draft.plan.enforces_thinking_budget
            exchange.release_body()
            return relay(exchange, record, draft.plan, response, heard)

        try:
            await self._upstream.forward(draft.plan.call.pool, request, pass_on)  # waits for a backend
        except (ClientClosed, BackendTimeout, asyncio.CancelledError):
            record.cancelled = True
            raise
        finally:
            _note_outcome(record, request, draft.plan)

    async def plan(self, call: Call, snapshot: Snapshot, *, explore: bool = False) -> Plan:
        """Decide how a call will be sent. `/v1/route` and `thinkmeter route` show the same plan.

        explore: draw another tier at random for the configured share of requests.
        """
        if not call.endpoint.has_tiers:
            return Plan(call)
        router, settings = snapshot.router, snapshot.settings
        if router.embedder is not None:
            await self.embeddings.prefetch(router.embedder, settings.encoder, call.request.prompt)
        pricing = self._ledger.pricing
        routing = router.route(
            call,
            price=pricing.price(call.limits, settings.price),
            explore=explore and settings.exploration > 0 and not pricing.tight(call.limits),
        )
        plan = Plan(call, routing, routing.decision)
        if plan.fits:
            return plan
        return plan.beside(await self._counts.of(call.pool, len(call.body), plan.count_request))

    def _note(self, call: Call, routing: RoutingPlan | None, demand: Demand) -> None:
        """Tell the prices of the budgets what was decided, if anything was."""
        if routing is None:
            return
        settings = call.settings
        estimates = routing.estimates(settings.reservations)
        self._ledger.pricing.note(call.limits, estimates, routing.prices, demand, settings.price)


class _GivingWay:
    """Has threads give Python's lock to the event loop soon, while one of them parses a large body.

    With the usual interval, 5 ms, each step of a small request would wait for so long. A short one costs time
    whenever the log is written, so it holds for no longer than needed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._usual, self._running = seconds, sys.getswitchinterval(), 0

    def __enter__(self) -> None:
        self._running += 1
        sys.setswitchinterval(self._seconds)

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        if not self._running:
            sys.setswitchinterval(self._usual)


_giving_way = _GivingWay(0.0005)


async def read_request(exchange: Exchange, endpoint: Endpoint) -> tuple[Request, bytes]:
    """Read and parse a body, in a thread if it takes long. Returns the request, and the body.

    Raises: RequestError, ClientClosed.
    """
    body = exchange.whole_body()
    if body is None:
        body = await exchange.body()
    if slow_to_parse(body):
        loop = asyncio.get_running_loop()
        with _giving_way:
            return await loop.run_in_executor(large_bodies, endpoint.parse, body), body
    return endpoint.parse(body), body


def _upstream_request(plan: Plan, sender: Sender, exchange: Exchange, record: Record) -> UpstreamRequest:
    """What the backend gets."""
    call = plan.call
    headers = [*sender.passing, (b"X-Request-Id", record.request_id.encode())]
    stream, fields = call.request.stream, call.request.fields
    request = UpstreamRequest(
        call.endpoint.path,
        encode(plan.fields()),
        forwarded(headers, record.trace_headers) if record.trace_headers else headers,
        stream,
        sender.affinity,
        sender.name or exchange.peer_address,
        call.body,
        binary=call.endpoint.binary,
        late=stream and begins_late(fields),
        holds_back=stream and may_hold_back(fields),
    )
    if "stop" in fields and plan.stops:
        request.whole_bytes = LONGEST_CUT
    return request


def _note_outcome(record: Record, request: UpstreamRequest, plan: Plan) -> None:
    """Note which backends were tried, and tell the reservation what became of the request."""
    record.attempts = len(request.tried)
    record.backend = request.tried[-1] if request.tried else None
    if record.reservation is None:
        return
    usage = record.usage
    # a stream that ends as it should has its usage, so that nobody asks what could be hidden
    blind = plan.blind if usage.source != "backend" else _NOT_BLIND
    record.reservation.outcome = Outcome(
        usage=usage,
        streamed=record.stream,
        unseen=blind.reasoning,
        held=0 if usage.complete else blind.unseen(record.silence, record.rate),
        silent=record.silent or blind.silent,
        attempts=record.attempts,
        answered=record.answered,
    )
