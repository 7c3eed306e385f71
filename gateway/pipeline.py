"""The path of a request, whole: identify → predict → decide → open upstream → pass on → record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Raw

from gateway import protocol
from gateway.budget import Ledger
from gateway.budget_config import Reservations
from gateway.embedding import Embedding
from gateway.errors import BackendDisconnected, BackendError, BackendTimeout, ClientClosed
from gateway.exchange import Exchange
from gateway.headers import Headers, forwarded
from gateway.policy import Decision
from gateway.protocol import Fields, Request
from gateway.record import Record
from gateway.replicas import Pool
from gateway.reservation import Need, Step
from gateway.rulings import Rulings, Target
from gateway.shortening import Judgement, prompt_bound
from gateway.tiers import Length
from gateway.upstream import Call, Reply, Upstream
from gateway.usage import StreamReader, read_answer


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of request: how it is read, whether tiers apply to it, and the field that caps its answer."""

    path: str
    parse: Callable[[bytes], Request]
    tiers: bool = True
    cap: str = "max_completion_tokens"


CHAT = Route("/v1/chat/completions", protocol.parse_chat)
COMPLETIONS = Route("/v1/completions", protocol.parse_completion, cap="max_tokens")
EMBEDDINGS = Route("/v1/embeddings", protocol.parse_embedding, tiers=False)


class Pipeline:
    """Serves requests with the rulings of the moment."""

    def __init__(self, rulings: Rulings, upstream: Upstream, ledger: Ledger) -> None:
        self.rulings = rulings
        self.upstream = upstream
        self.ledger = ledger
        self.embedding = Embedding(upstream)

    async def serve(self, exchange: Exchange, record: Record, route: Route) -> None:
        """Answer one request from a backend; errors are raised, and the caller answers with them."""
        # both at once: a reload replaces them together, and this request keeps what it began with
        rulings, pools = self.rulings, self.upstream.pools
        key = rulings.identify(exchange.headers)
        record.key = key.name if key else None
        body = await exchange.body()
        request = route.parse(body)
        arrived = time.perf_counter()
        target = rulings.target(request.model, key)
        limits = rulings.budgets.of(key, target.name)
        if limits and route is COMPLETIONS:
            request = protocol.with_default_length(request)
        record.model, record.stream, record.choices = target.name, request.stream, request.choices
        pool, judgement = pools[target.name], None
        if route.tiers:
            await self.embedding.bring(rulings.embedder, rulings.settings.encoder, request.prompt)
            price = self.ledger.pricing.price(limits, rulings.settings.price) if limits else None
            judgement = rulings.judge(
                target,
                key,
                exchange.headers,
                request,
                pool.context,
                price=price,
                explores=not self.ledger.pricing.tight(limits),
            )
            record.decision = judgement.decision
            record.sends_budget = route is CHAT and target.ladder.holds_budget
            record.decision_seconds = time.perf_counter() - arrived
        need = Need(())
        if limits:
            need = _need(judgement, request, body, rulings.settings.reservations)
            if judgement:
                self.ledger.pricing.note(limits, judgement, need, rulings.settings.price)
        async with exchange.watched(), self.ledger.hold(limits, need, record) as reservation:
            bounded, record.reservation = False, reservation
            if reservation and judgement:
                record.decision, bounded = judgement.granted(reservation), reservation.strict
                record.unseen = 0 if request.shows_reasoning else record.decision.thinking * request.choices
            fields = outgoing(
                route,
                request,
                target,
                pool.served_name,
                record.decision,
                bounded=bounded,
                counts=reservation is not None,
            )
            call = Call(
                route.path,
                protocol.encode(fields),
                forwarded(exchange.raw_headers, _own_headers(record)),
                request.stream,
                _affinity(rulings, exchange),
            )
            record.overhead = time.perf_counter() - arrived
            await self._pass_on(exchange, record, request, pool, call)

    async def _pass_on(
        self, exchange: Exchange, record: Record, request: Request, pool: Pool, call: Call
    ) -> None:
        try:
            async with self.upstream.open(pool, call) as reply:
                record.answered = True
                if request.stream:
                    await _pass_stream(exchange, record, request, reply)
                else:
                    await _pass_whole(exchange, record, reply)
        except (ClientClosed, BackendTimeout, asyncio.CancelledError):
            record.cancelled = True
            raise
        finally:
            record.attempts = len(call.tried)
            record.backend = call.tried[-1] if call.tried else None


def _need(judgement: Judgement | None, request: Request, body: bytes, reservations: Reservations) -> Need:
    if judgement is None:
        return Need((Step(0),), prompt=prompt_bound(body))  # of any number of inputs
    return judgement.need(reservations, choices=request.choices, body=body, prompts=request.prompts)


def _own_headers(record: Record) -> Headers:
    """What the gateway itself tells a backend."""
    return [
        (b"Content-Type", b"application/json"),
        (b"X-Request-Id", record.request_id.encode()),
        *record.trace_headers,
    ]


def _affinity(rulings: Rulings, exchange: Exchange) -> str | None:
    header = rulings.settings.affinity_header
    return exchange.headers.get(header.lower().encode(), b"").decode("latin-1") or None if header else None


def outgoing(
    route: Route,
    request: Request,
    target: Target,
    served_name: str,
    decision: Decision | None,
    *,
    bounded: bool = False,
    counts: bool = False,
) -> Fields:
    """The fields sent upstream: the client's own bytes, but for the model's name, the tier and usage.

    bounded: send the cap even where the tier sets none, as no more than that was set aside.
    counts: have a stream say all along how many tokens there were, as a chunk can hold several.
    """
    fields = request.fields
    if decision:
        length = Length(decision.thinking, decision.cap)
        if route is CHAT:
            fields = target.ladder.apply(fields, decision.tier, length)
        else:
            fields = target.ladder.clamp(fields, length)
        if bounded and decision.cap is not None:
            others = {name: value for name, value in fields.items() if name != "max_tokens"}
            fields = others | {route.cap: Raw(b"%d" % decision.cap)}
    if request.model != served_name:
        fields = fields | {"model": Raw(protocol.encode(served_name))}
    if request.stream and (counts or not request.wants_usage):
        fields = fields | {"stream_options": protocol.with_usage(fields.get("stream_options"), counts=counts)}
    return fields


async def _pass_whole(exchange: Exchange, record: Record, reply: Reply) -> None:
    begun = time.perf_counter()
    tally = read_answer(reply.body)
    if tally is None:
        raise BackendError("The backend sent an answer that cannot be read", detail="not JSON")
    record.tally = tally
    await exchange.answer(reply.status, _headers(record, reply, begun), reply.body)


async def _pass_stream(exchange: Exchange, record: Record, request: Request, reply: Reply) -> None:
    reader = StreamReader(
        strip_usage=not request.wants_usage,
        strip_counts=record.reservation is not None and not request.wants_counts,
        prompts=request.prompts,
    )
    record.progress = lambda: reader.passed(record.unseen)
    try:
        async for block in reply.blocks():
            begun = time.perf_counter()
            if events := reader.feed(block):
                if not exchange.started:
                    record.first_byte = record.elapsed()
                    await exchange.start(reply.status, _headers(record, reply, begun), streams=True)
                await exchange.write(events)
        if not reader.done and not reader.failed:
            raise BackendDisconnected("The backend closed the stream before its end")
        if reader.failed:
            record.error = BackendError("The backend reported an error inside the stream")
        await exchange.finish()
    finally:
        record.tally = reader.tally()


def _headers(record: Record, reply: Reply, begun: float) -> Headers:
    """The backend's headers and ours, as the response starts; `begun` is when the backend's was there."""
    record.overhead = (record.overhead or 0.0) + time.perf_counter() - begun
    headers = [
        *reply.headers,
        (b"x-thinkmeter-backend", reply.backend.name.encode()),
        (b"x-thinkmeter-overhead-ms", b"%.3f" % (record.overhead * 1000)),
    ]
    if record.reservation:
        headers += record.reservation.headers()
    if decision := record.decision:
        if decision.wanted:
            headers.append((b"x-thinkmeter-degraded-from", decision.wanted.encode()))
        headers += [
            (b"x-thinkmeter-tier", decision.tier.encode()),
            (b"x-thinkmeter-tier-requested", decision.requested.encode()),
            (b"x-thinkmeter-reason", decision.reason.encode()),
            (b"x-thinkmeter-difficulty", b"%.3f" % decision.difficulty),
            (b"x-thinkmeter-thinking-budget", b"%d" % decision.thinking),
            (b"x-thinkmeter-decision-id", decision.id.encode()),
        ]
    return headers
