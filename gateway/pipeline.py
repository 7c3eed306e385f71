"""The path of a request, whole: identify → predict → decide → open upstream → pass on → record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Raw

from gateway import protocol
from gateway.errors import BackendDisconnected, BackendError, BackendTimeout, ClientClosed
from gateway.exchange import Exchange
from gateway.headers import Headers, forwarded
from gateway.policy import Decision
from gateway.protocol import Fields, Request
from gateway.rulings import Rulings, Target
from gateway.tiers import Length
from gateway.upstream import Call, Reply, Upstream
from gateway.usage import StreamReader, read_answer


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of request: how it is read, and whether tiers apply to it."""

    path: str
    parse: Callable[[bytes], Request]
    tiers: bool = True


CHAT = Route("/v1/chat/completions", protocol.parse_chat)
COMPLETIONS = Route("/v1/completions", protocol.parse_completion)
EMBEDDINGS = Route("/v1/embeddings", protocol.parse_embedding, tiers=False)


class Pipeline:
    """Serves requests with the rulings of the moment."""

    def __init__(self, rulings: Rulings, upstream: Upstream) -> None:
        self.rulings = rulings
        self.upstream = upstream

    async def serve(self, exchange: Exchange, route: Route) -> None:
        """Answer one request from a backend; errors are raised, and the caller answers with them."""
        # both at once: a reload replaces them together, and this request keeps what it began with
        rulings, pools, record = self.rulings, self.upstream.pools, exchange.record
        key = rulings.identify(exchange.headers)
        record.key = key.name if key else None
        request = route.parse(await exchange.body())
        arrived = time.perf_counter()
        target = rulings.target(request.model, key)
        record.model, record.stream, record.choices = target.name, request.stream, request.choices
        pool = pools[target.name]
        if route.tiers:
            record.decision = rulings.decide(target, key, exchange.headers, request, pool.context)
            record.decision_seconds = time.perf_counter() - arrived
        call = Call(
            route.path,
            protocol.encode(outgoing(route, request, target, pool.served_name, record.decision)),
            forwarded(exchange.raw_headers, exchange.upstream_headers),
            request.stream,
            _affinity(rulings, exchange),
        )
        record.overhead = time.perf_counter() - arrived
        try:
            async with exchange.watched(), self.upstream.open(pool, call) as reply:
                if request.stream:
                    await _pass_stream(exchange, request, reply)
                else:
                    await _pass_whole(exchange, reply)
        except (ClientClosed, BackendTimeout, asyncio.CancelledError):
            record.cancelled = True
            raise
        finally:
            record.attempts = len(call.tried)
            record.backend = call.tried[-1] if call.tried else None


def _affinity(rulings: Rulings, exchange: Exchange) -> str | None:
    header = rulings.settings.affinity_header
    return exchange.headers.get(header.lower().encode(), b"").decode("latin-1") or None if header else None


def outgoing(
    route: Route, request: Request, target: Target, served_name: str, decision: Decision | None
) -> Fields:
    """The fields sent upstream: the client's own bytes, but for the model's name, the tier and usage."""
    fields = request.fields
    if decision:
        length = Length(decision.thinking, decision.cap)
        if route is CHAT:
            fields = target.ladder.apply(fields, decision.tier, length)
        else:
            fields = target.ladder.clamp(fields, length)
    if request.model != served_name:
        fields = fields | {"model": Raw(protocol.encode(served_name))}
    if request.stream and not request.wants_usage:
        fields = fields | {"stream_options": protocol.with_usage(fields.get("stream_options"))}
    return fields


async def _pass_whole(exchange: Exchange, reply: Reply) -> None:
    begun = time.perf_counter()
    tally = read_answer(reply.body)
    if tally is None:
        raise BackendError("The backend sent an answer that cannot be read", detail="not JSON")
    exchange.record.tally = tally
    await exchange.answer(reply.status, _headers(exchange, reply, begun), reply.body)


async def _pass_stream(exchange: Exchange, request: Request, reply: Reply) -> None:
    record, reader = exchange.record, StreamReader(strip_usage=not request.wants_usage)
    try:
        async for block in reply.blocks():
            begun = time.perf_counter()
            if events := reader.feed(block):
                if not exchange.started:
                    record.first_byte = record.elapsed()
                    await exchange.start(reply.status, _headers(exchange, reply, begun), streams=True)
                await exchange.write(events)
        if not reader.done and not reader.failed:
            raise BackendDisconnected("The backend closed the stream before its end")
        if reader.failed:
            record.error = BackendError("The backend reported an error inside the stream")
        await exchange.finish()
    finally:
        record.tally = reader.tally()


def _headers(exchange: Exchange, reply: Reply, begun: float) -> Headers:
    """The backend's headers and ours, as the answer starts; `begun` is when the reply was there."""
    record = exchange.record
    record.overhead = (record.overhead or 0.0) + time.perf_counter() - begun
    headers = [
        *reply.headers,
        (b"x-thinkmeter-backend", reply.backend.name.encode()),
        (b"x-thinkmeter-overhead-ms", b"%.3f" % (record.overhead * 1000)),
    ]
    if decision := record.decision:
        headers += [
            (b"x-thinkmeter-tier", decision.tier.encode()),
            (b"x-thinkmeter-tier-requested", decision.requested.encode()),
            (b"x-thinkmeter-reason", decision.reason.encode()),
            (b"x-thinkmeter-difficulty", b"%.3f" % decision.difficulty),
            (b"x-thinkmeter-thinking-budget", b"%d" % decision.thinking),
            (b"x-thinkmeter-decision-id", decision.id.encode()),
        ]
    return headers
