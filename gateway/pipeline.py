"""The path of one request: admit, plan, reserve, forward, relay, settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from gateway.budget.ledger import Ledger
from gateway.budget.reservation import Demand, Outcome
from gateway.budget.waiting import Turn
from gateway.errors import BackendError, BackendTimeout, ClientClosed
from gateway.http.exchange import Exchange
from gateway.http.headers import Headers, forwarded
from gateway.openai_api.endpoints import Endpoint
from gateway.openai_api.large_requests import LARGE_BODY, slow_to_parse
from gateway.openai_api.lengths import begins_late, may_hold_back
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.requests import Request, encode
from gateway.openai_api.responses import UsageScanner, read_usage
from gateway.openai_api.stream import StreamReader
from gateway.routing.call import Blind, Call, Plan
from gateway.snapshot import Snapshot
from gateway.telemetry.record import Record
from gateway.upstream.dispatch import Upstream
from gateway.upstream.embedding import Embeddings
from gateway.upstream.quarantine import fingerprint_of
from gateway.upstream.relaying import relay_events
from gateway.upstream.response import UpstreamRequest, UpstreamResponse

_SHORT = 0.5
"""Seconds. Over a shorter time, the rate of a stream cannot be told."""
_large_bodies = ThreadPoolExecutor(2, "large-bodies")  # few, as each slows the event loop down a little


class Pipeline:
    """Serves requests with the snapshot of the configuration in use."""

    def __init__(self, snapshot: Snapshot, upstream: Upstream, ledger: Ledger) -> None:
        self.snapshot = snapshot
        """Replaced by a reload. Take it once per request."""
        self._upstream = upstream
        self._ledger = ledger
        self.embeddings = Embeddings(upstream)

    async def serve(self, exchange: Exchange, record: Record, endpoint: Endpoint) -> None:
        """Serve one request from a backend.

        Raises: GatewayError, which the caller turns into a response.
        """
        snapshot = self.snapshot  # taken once: a reload must not change the rules under a request
        call = await admit(exchange, record, endpoint, snapshot)
        async with exchange.cancel_on_disconnect():
            plan = await self.plan(call, snapshot, explore=True)  # may wait for an embedding of the prompt
        demand = plan.demand
        self._note(record, plan, demand)
        async with exchange.cancel_on_disconnect():
            async with self._ledger.hold(call.limits, demand, _turn(call)) as reservation:
                plan = plan.granted(reservation)
                request = _upstream_request(plan, exchange, record)
                if len(call.body) > LARGE_BODY:
                    # What is sent is a copy of the body. Keep the body itself no longer.
                    plan = plan.without_body()
                    call = plan.call
                with _noting_attempts(record, request, plan):
                    async with self._upstream.open(call.pool, request) as response:  # waits for a backend
                        record.answered = True
                        exchange.release_body()
                        await relay(exchange, record, plan, response)
            # Tokens and slot are free. The client may take its time to read the rest.
            if not exchange.finished:
                await exchange.finish()

    async def plan(self, call: Call, snapshot: Snapshot, *, explore: bool = False) -> Plan:
        """Decide how a call will be sent. `/v1/route` and `thinkmeter route` show the same plan.

        explore: draw another tier at random for the configured share of requests.
        """
        if not call.endpoint.has_tiers:
            return Plan(call)
        router, settings = snapshot.router, snapshot.settings
        await self.embeddings.prefetch(router.embedder, settings.encoder, call.request.prompt)
        pricing = self._ledger.pricing
        routing = router.route(
            call,
            price=pricing.price(call.limits, settings.price),
            explore=explore and not pricing.tight(call.limits),
        )
        return Plan(call, routing, routing.decision)

    def _note(self, record: Record, plan: Plan, demand: Demand) -> None:
        """Tell the record, and the prices of the budgets, what was decided."""
        call = plan.call
        if plan.routing is None:
            return
        record.decision = plan.decision
        record.sends_thinking_budget = call.enforces_thinking_budget
        record.decision_seconds = time.perf_counter() - record.admitted
        if call.limits:
            estimates = plan.routing.estimates(demand.choices)
            self._ledger.pricing.note(
                call.limits, estimates, plan.routing.prices, demand, call.settings.price
            )


def _turn(call: Call) -> Turn:
    """How long the request may wait for room in its budgets, and for whom."""
    queue = call.settings.queue
    return Turn(queue.seconds, queue.requests, call.key.name if call.key else None)


async def admit(exchange: Exchange, record: Record, endpoint: Endpoint, snapshot: Snapshot) -> Call:
    """Authenticate a request, read its body, and find its model, backends and budgets.

    Raises: RequestError, ClientClosed.
    """
    key = snapshot.router.identify(exchange.headers)  # first: no body of an unknown client is read
    record.key = key.name if key else None
    body, request = await read_request(exchange, endpoint)
    record.admitted = time.perf_counter()
    call = snapshot.call(endpoint, key, exchange.headers, request, body)
    record.model, record.stream, record.choices = call.target.name, request.stream, call.request.choices
    return call


async def read_request(exchange: Exchange, endpoint: Endpoint) -> tuple[bytes, Request]:
    """Read and parse a body, in a thread if it takes long.

    Raises: RequestError, ClientClosed.
    """
    body = await exchange.body()
    if not slow_to_parse(body):
        return body, endpoint.parse(body)
    return body, await asyncio.get_running_loop().run_in_executor(_large_bodies, endpoint.parse, body)


def _upstream_request(plan: Plan, exchange: Exchange, record: Record) -> UpstreamRequest:
    """What the backend gets. The overhead noted is our own share of the time until it is sent."""
    call, reservation = plan.call, plan.reservation
    record.reservation, record.decision = reservation, plan.decision
    own_headers = [
        (b"Content-Type", b"application/json"),
        (b"X-Request-Id", record.request_id.encode()),
        *record.trace_headers,
    ]
    stream, fields = call.request.stream, call.request.fields
    request = UpstreamRequest(
        call.endpoint.path,
        encode(plan.fields()),
        forwarded(exchange.raw_headers, own_headers, call.forwards),
        stream,
        call.affinity,
        record.key or exchange.peer_address,
        fingerprint_of(call.endpoint.path, call.body),
        binary=call.endpoint.binary,
        late=stream and begins_late(fields),
        holds_back=stream and may_hold_back(fields),
    )
    record.overhead = time.perf_counter() - record.admitted
    return request


@contextmanager
def _noting_attempts(record: Record, request: UpstreamRequest, plan: Plan) -> Iterator[None]:
    """Note which backends were tried, and tell the reservation what became of the request."""
    try:
        yield
    except (ClientClosed, BackendTimeout, asyncio.CancelledError):
        record.cancelled = True
        raise
    finally:
        record.attempts = len(request.tried)
        record.backend = request.tried[-1] if request.tried else None
        if record.reservation:
            # a stream that ends as it should has its usage, so that nobody asks what could be hidden
            blind = plan.blind if record.usage.source != "backend" else Blind()
            record.reservation.outcome = Outcome(
                usage=record.usage,
                streamed=record.stream,
                unseen=blind.reasoning,
                held=0 if record.usage.complete else blind.unseen(record.silence, record.rate),
                silent=record.silent or blind.silent,
                attempts=record.attempts,
                answered=record.answered,
            )


async def relay(exchange: Exchange, record: Record, plan: Plan, response: UpstreamResponse) -> None:
    """Pass a backend's response on, and read its token usage on the side.

    Raises: BackendError, BackendDisconnected, ClientClosed.
    """
    record.stream = response.kind == "stream"
    try:
        if record.stream:
            await _relay_stream(exchange, record, plan, response)
        elif response.complete:
            await _relay_whole(exchange, record, response)
        else:
            await _relay_blocks(exchange, record, response)
    finally:
        response.backend.note_thought(record.usage)


async def _relay_whole(exchange: Exchange, record: Record, response: UpstreamResponse) -> None:
    begun = time.perf_counter()
    usage = response.vector_usage if response.kind == "bytes" else read_usage(response.body)
    if usage is None:
        raise _unreadable()
    record.usage = usage
    await exchange.respond(response.status, _headers(record, response, begun), response.body)


async def _relay_blocks(exchange: Exchange, record: Record, response: UpstreamResponse) -> None:
    """Pass on a response that is too large to be held whole, as fast as the client reads."""
    begun, vectors = time.perf_counter(), response.kind == "bytes"
    if not vectors and not response.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        raise _unreadable()
    scanner = UsageScanner()
    headers = _headers(record, response, begun)
    if response.length is not None:
        headers.append((b"content-length", b"%d" % response.length))
    await exchange.start(response.status, headers)
    async for block in response.blocks():
        scanner.feed(block)
        await exchange.stream(block)
    record.usage = response.vector_usage if vectors else scanner.token_usage()


def _unreadable() -> BackendError:
    return BackendError("The backend sent an answer that cannot be read", detail="not JSON", spent=True)


async def _relay_stream(exchange: Exchange, record: Record, plan: Plan, response: UpstreamResponse) -> None:
    reader = _reader(plan)
    first = response.latest = time.perf_counter()

    async def send(events: bytes) -> None:
        if not exchange.started:
            record.first_byte = record.elapsed()
            await exchange.start(response.status, _headers(record, response, response.latest), streams=True)
        await exchange.stream(events)

    response.thinking = lambda: plan.thinks and not reader.passed()  # in a thought that is not shown
    if plan.reservation:
        plan.reservation.progress = lambda: _progress(plan.blind, reader, first, response.latest)
    try:
        await relay_events(response, reader, send, comments=plan.call.settings.timeouts.comment > 0)
        if reader.failed:
            record.error = BackendError("The backend reported an error inside the stream")
    finally:
        record.usage = reader.token_usage()
        if plan.reservation:
            plan.reservation.progress = None  # it holds the record, which holds the reservation
        record.silence = time.perf_counter() - response.latest
        record.rate = _rate(reader, response.latest - first)
        unasked = not plan.call.request.stream and record.usage.source != "backend"
        record.silent = unasked or reader.silent(record.silence)


def _reader(plan: Plan) -> StreamReader:
    """The reader of a stream, which removes what only the gateway has asked for."""
    request, chat = plan.call.request, plan.call.endpoint.has_template
    return StreamReader(
        strip_usage=request.stream and not request.wants_usage,
        strip_counts=plan.reservation is not None and not request.wants_counts,
        prompts=request.prompts,
        choices=request.choices,
        lost=LostThought(expected=plan.thinks and request.shows_reasoning) if chat else None,
    )


def _progress(blind: Blind, reader: StreamReader, first: float, latest: float) -> int:
    """Tokens that a stream has spent, whose first and latest block came at these times; -1 if unknown."""
    silence = time.perf_counter() - latest
    if blind.silent or reader.silent(silence):
        return -1
    return reader.passed(blind.reasoning) + blind.unseen(silence, _rate(reader, latest - first))


def _rate(reader: StreamReader, seconds: float) -> float:
    """Tokens of a stream that passed in a second."""
    return reader.passed() / max(seconds, _SHORT)


def _headers(record: Record, response: UpstreamResponse, begun: float) -> Headers:
    """The backend's headers and ours, as the response starts; `begun` is when the backend's was there."""
    record.overhead = (record.overhead or 0.0) + time.perf_counter() - begun
    headers = [
        *response.headers,
        (b"x-thinkmeter-backend", response.backend.name.encode()),
        (b"x-thinkmeter-overhead-ms", b"%.3f" % (record.overhead * 1000)),
    ]
    if record.reservation:
        headers += record.reservation.headers()
    if record.decision:
        headers += record.decision.headers()
    return headers
