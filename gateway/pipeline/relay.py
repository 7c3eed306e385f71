"""Passes a backend's response on to the client, and reads its token usage on the side."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from gateway.errors import BackendDisconnected, BackendError
from gateway.http.exchange import Exchange
from gateway.http.flow import write_at_once
from gateway.openai_api.compiled_events import RepeatedEvents
from gateway.openai_api.earlier_streams import EarlierStreams
from gateway.openai_api.event_stream import BLANK_LINES, KEEP_ALIVE
from gateway.openai_api.heard_answers import HeardAnswer
from gateway.openai_api.large_requests import LARGE_BODY
from gateway.openai_api.lost_thoughts import LostThought
from gateway.openai_api.responses import UsageScanner, read_usage
from gateway.openai_api.stopped_responses import read_stopped
from gateway.openai_api.stopped_streams import reader_of
from gateway.openai_api.stream import StreamReader
from gateway.openai_api.usage import TokenUsage
from gateway.pipeline.response_headers import response_headers
from gateway.pipeline.stream_progress import stream_progress, stream_rate
from gateway.routing.call import Plan
from gateway.telemetry.record import Record
from gateway.upstream.response import UpstreamResponse

large_bodies = ThreadPoolExecutor(2, "large-bodies")
"""Parses bodies that take long. Few threads, as each slows the event loop down a little."""

_LONGEST_BLANK_LINE = 3
_ENOUGH = 2  # blocks that repeat others in a row, until the next ones pass in C
_WORTHWHILE = 16  # blocks that must have passed there, or else it is tried later the next time
_LAST_WORDS = 10.0
"""Seconds after the last finish reason in which a backend sends the usage and the end mark, if it does."""

_earlier_streams = EarlierStreams()


async def relay(
    exchange: Exchange,
    record: Record,
    plan: Plan,
    response: UpstreamResponse,
    heard: HeardAnswer | None = None,
) -> None:
    """Pass on a response of any kind. heard: takes what the client gets of it, unless that is very large.

    Raises: BackendError, BackendDisconnected, ClientClosed.
    """
    begun = time.perf_counter()
    record.stream = response.kind == "stream"
    if not response.complete:
        await _relay_parts(exchange, record, plan, response, heard)
        return
    body, stops = response.body, plan.stops
    if response.kind == "bytes":
        usage: TokenUsage | None = response.vector_usage
    elif stops is None:
        usage = read_usage(body)
    elif len(body) <= LARGE_BODY:
        usage, body = read_stopped(body, stops)
    else:
        loop = asyncio.get_running_loop()
        usage, body = await loop.run_in_executor(large_bodies, read_stopped, body, stops)
    if usage is None:
        raise _unreadable()
    record.usage = usage
    if usage.reasoning or usage.lost_mark:
        response.backend.note_thought(usage)
    if heard is not None:
        heard.whole(body)
    await exchange.respond(response.status, response_headers(record, response, begun), body)


async def _relay_parts(
    exchange: Exchange, record: Record, plan: Plan, response: UpstreamResponse, heard: HeardAnswer | None
) -> None:
    """Pass on a response as it arrives."""
    try:
        if record.stream:
            await _relay_stream(exchange, record, plan, response, heard)
        else:
            await _relay_blocks(exchange, record, response)
    finally:
        response.backend.note_thought(record.usage)


async def _relay_blocks(exchange: Exchange, record: Record, response: UpstreamResponse) -> None:
    """Pass on a response that is too large to be held whole, as fast as the client reads."""
    begun, vectors = time.perf_counter(), response.kind == "bytes"
    if not vectors and not response.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        raise _unreadable()
    scanner = UsageScanner()
    headers = response_headers(record, response, begun)
    if response.length is not None:
        headers.append((b"content-length", b"%d" % response.length))
    await exchange.start(response.status, headers)
    async for block in response.blocks():
        scanner.feed(block)
        await exchange.stream(block)
    record.usage = response.vector_usage if vectors else scanner.token_usage()


def _unreadable() -> BackendError:
    return BackendError("The backend sent an answer that cannot be read", detail="not JSON", spent=True)


async def _relay_stream(
    exchange: Exchange, record: Record, plan: Plan, response: UpstreamResponse, heard: HeardAnswer | None
) -> None:
    reader = _reader(plan)
    first = response.latest = time.perf_counter()
    response.thinking = lambda: plan.thinks and not reader.passed()  # in a thought that is not shown
    if plan.reservation:
        plan.reservation.progress = lambda: stream_progress(plan.blind, reader, first, response.latest)
    relay = StreamRelay(exchange, record, response, reader, heard)
    try:
        await relay.run(comments=plan.call.settings.timeouts.comment > 0)
        if reader.stopped:
            record.cancelled = record.stopped = True
        if reader.failed:
            record.error = BackendError("The backend reported an error inside the stream")
    finally:
        record.usage = reader.token_usage()
        if plan.reservation:
            plan.reservation.progress = None  # it holds the record, which holds the reservation
        record.silence = time.perf_counter() - response.latest
        record.rate = stream_rate(reader, response.latest - first)
        unasked = not plan.call.request.stream and record.usage.source != "backend"
        record.silent = unasked or reader.silent(record.silence)


class StreamRelay:
    """Sends what a reader makes of a stream to the client.

    A block passes through `take` in the turn of the event loop in which it arrives. The request's task wakes
    up only to start the response, when the client does not read, in a silence, and at the end.
    """

    __slots__ = (
        *("_compiled", "_due", "_end", "_exchange", "_first", "_heard", "_reader", "_record", "_repeats"),
        *("_response", "_waits"),
    )

    def __init__(
        self,
        exchange: Exchange,
        record: Record,
        response: UpstreamResponse,
        reader: StreamReader,
        heard: HeardAnswer | None,
    ) -> None:
        self._exchange, self._record, self._response = exchange, record, response
        self._reader, self._heard = reader, heard
        self._first = b""
        """The events that the response starts with, until it has."""
        self._end = b""
        """The end of what was sent last."""
        self._waits = False
        """`take` has told that the task must go on first."""
        self._repeats = 0
        """Blocks that repeated others, one after the other."""
        self._due = _ENOUGH
        """So many of them let the next ones pass in C."""
        self._compiled: RepeatedEvents | None = None
        """Passes on the next events, as long as they repeat others."""

    def take(self, block: bytes) -> bool:
        """Pass on a block. Returns False if the task must go on before there can be more."""
        self._response.latest = time.perf_counter()
        self._compiled = None
        events = self._reader.feed(block)
        if events:
            if self._heard is not None:
                self._heard.events(events)
            self._end = events[-_LONGEST_BLANK_LINE:]
            if not self._exchange.started:
                self._first, self._waits = events, True
                return False
            if not self._exchange.pass_on(events):
                self._waits = True
                return False
        if self._reader.stopped:
            self._waits = True
            return False
        self._let_repeats_pass()
        return True

    def _let_repeats_pass(self) -> None:
        if self._heard is None and self._end.endswith(BLANK_LINES):
            self._compiled = self._reader.compiled()

    def _pass_repeats(self, data: bytes) -> bytes:
        """Pass on chunks of events that repeat others, past the reader. Returns the rest, for `take`."""
        client, compiled = self._exchange.client, self._compiled
        if compiled is None or client.paused or client.gone or not self._exchange.takes_chunks:
            return data
        passed, rest = compiled.pass_on(data)
        if not passed:
            return rest
        self._response.latest = time.perf_counter()
        self._repeats = self._repeats + 1 if not rest or compiled.begins(rest) else 0
        if self._repeats < self._due:
            client.transport.write(passed)
            return rest
        write_at_once(client.transport, passed)
        return b"" if self._divert(client.transport, compiled, rest) else rest

    def _divert(self, client: asyncio.Transport, compiled: RepeatedEvents, beginning: bytes) -> bool:
        """Let the next repetitions pass in C, which pays if many come in a row."""
        response = self._response
        due = _ENOUGH if response.diverted_blocks >= _WORTHWHILE else self._due * 2
        diverted = response.divert(client, compiled, beginning, self._write)
        if diverted:
            self._repeats, self._due = 0, due
        return diverted

    def _write(self, unsent: bytes) -> None:
        client = self._exchange.client
        if not client.gone:
            client.transport.write(unsent)

    async def run(self, *, comments: bool) -> None:
        """Pass on the whole stream, with a comment line whenever it is silent for long.

        A stream whose answer is complete has ended well, even if the backend breaks off before its end mark,
        or leaves the connection open after it.

        comments: a comment line is sent in a silence, but only between whole events.

        Raises: BackendDisconnected, ClientClosed.
        """
        response, reader = self._response, self._reader
        response.open_shortcut(self._pass_repeats)
        try:
            while not response.at_end:
                self._waits = False
                await response.pass_on(self.take)
                if self._waits:
                    await response.wait_for_client(self._go_on())
                    if reader.stopped:
                        return  # which closes the connection, so that the backend stops too
                    self._let_repeats_pass()
                elif response.at_end or self._has_ended():
                    break
                elif comments and self._end.endswith(BLANK_LINES):
                    await self._send(KEEP_ALIVE)
        except BackendDisconnected:
            if not reader.answered:
                raise
        finally:
            response.open_shortcut(None)  # it holds the response
        if events := reader.finish():
            await self._send_last(events)
        if not (reader.done or reader.failed or reader.stopped):
            raise BackendDisconnected("The backend closed the stream before its end")

    async def _send_last(self, events: bytes) -> None:
        if self._heard is not None:
            self._heard.events(events)
        await self._send(events)

    def _has_ended(self) -> bool:
        """Whether nothing more is to be expected of a stream that has fallen silent."""
        reader = self._reader
        silence = time.perf_counter() - self._response.latest
        return reader.done or (reader.answered and silence > _LAST_WORDS)

    async def _go_on(self) -> None:
        """Do what `take` cannot: start the response, or wait until the client has read."""
        first, self._first = self._first, b""
        if first:
            await self._send(first)
        else:
            await self._exchange.room()

    async def _send(self, events: bytes) -> None:
        exchange, record, response = self._exchange, self._record, self._response
        if not exchange.started:
            record.first_byte = record.elapsed()
            await exchange.start(
                response.status, response_headers(record, response, response.latest), streams=True
            )
        await exchange.stream(events)


def _reader(plan: Plan) -> StreamReader:
    """The reader of a stream, which removes what only the gateway has asked for."""
    request, chat = plan.call.request, plan.call.endpoint.has_template
    return reader_of(
        plan.stops,
        strip_usage=request.stream and not request.wants_usage,
        strip_counts=plan.asks_counts and not request.wants_counts,
        prompts=request.prompts,
        choices=request.choices,
        lost=LostThought(expected=plan.thinks and request.shows_reasoning) if chat else None,
        earlier=_earlier_streams,
    )
