"""Sends a request to one of a model's replicas: picks the replica, retries, and opens the response.

The commit point is the moment `Upstream.forward` hands out a response: a complete body, or a stream with its
first complete event. Of a body over 512 KiB, its beginning is enough, so that it is never held whole. Before
the commit point, the client has received nothing, so another replica can be tried. After it, the client may
have read the status and the first tokens, so a failure can only end the response.

Example: replica a refuses a stream with 503. The client gets the stream of replica b and notices nothing. If
the client has already received `data: {"choices":[{"delta":{"content":"The"}}]}` when a fails, replica b
cannot continue that sentence, and the stream ends with an error event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from gateway.config.models import Replica
from gateway.errors import (
    BackendDisconnected,
    BackendError,
    GatewayError,
    NoBackend,
)
from gateway.openai_api.amendments import AS_PLANNED, Amendment
from gateway.openai_api.event_stream import first_error
from gateway.upstream.amending import PartRefused, adapt, amend, part_refused, remember_refused
from gateway.upstream.arriving import HttpResponse
from gateway.upstream.asking import ask_once
from gateway.upstream.beginning import first_event, kind_of, read_failure
from gateway.upstream.client import HttpClient
from gateway.upstream.deadline import Deadline, Deadlines
from gateway.upstream.errors import Failure, stream_failure
from gateway.upstream.http1 import Connection
from gateway.upstream.pool import Backend, Pool
from gateway.upstream.quarantine import Quarantine
from gateway.upstream.request import UpstreamRequest
from gateway.upstream.response import UpstreamResponse
from gateway.upstream.retries import costs, may_move_on

log = logging.getLogger("thinkmeter.upstream")


class Upstream:
    """The HTTP client to all backends."""

    def __init__(self) -> None:
        # vLLM closes connections that are idle for 5 s. Stop using them earlier, because a request sent just
        # as vLLM closes its connection is lost.
        self._client = HttpClient(keep_alive=4)
        self._deadlines = Deadlines()
        self._quarantine = Quarantine()

    def close_idle(self) -> None:
        """Close connections that have been idle for too long to be used again."""
        self._client.close_idle()

    def close(self) -> None:
        """Close all connections, including those in use."""
        self._client.close()
        self._deadlines.close()

    async def ask(
        self,
        replica: Replica,
        method: bytes,
        path: str,
        body: bytes = b"",
        *,
        connect: float,
        age: float = 300,
        repeatable: bool = False,
    ) -> tuple[int, bytes]:
        """Send a small request outside the request path, and return the status and the body.

        connect: the time to open a connection, in seconds. age: the time for which one is used, in seconds.
        repeatable: a POST may be sent twice.

        Raises: NoBackend, BackendDisconnected, BackendError.
        """
        ask = partial(ask_once, self._client, replica, method, path, body, connect=connect, age=age)
        try:
            return await ask()
        except BackendDisconnected:
            if not repeatable:
                raise
            return await ask()  # the server may have closed the kept-alive connection just then

    async def forward(
        self, pool: Pool, request: UpstreamRequest, relay: Callable[[UpstreamResponse], Awaitable[None]]
    ) -> None:
        """Send a request, and give its response to `relay`: all of the body, or the first block of a stream.

        When `relay` ends early, the connection is closed, which tells the backend to stop generating.

        Raises: BackendError and its subclasses, InvalidRequest, RouteNotFound.
        """
        end = asyncio.get_running_loop().time() + pool.timeouts.total
        only = self._quarantine.admit(pool, request, time.monotonic()) if self._quarantine else None
        response = await self._first_response(pool, request, end, only)
        request.body = request.amended = b""
        response.holds_back = request.holds_back
        try:
            if response.complete:
                # Free the slot at the replica now, however slowly the client reads.
                response.close()
                await relay(response)
            else:
                async with response.timeouts(pool.timeouts.idle, end, pool.timeouts.comment):
                    await relay(response)
            response.backend.breaker.record_success(request.client, time.monotonic())
            if only:
                self._quarantine.served(request)
        except BackendError as error:
            # `relay` raises it when a stream ends without `data: [DONE]`. A replica whose streams break is
            # failing, although each of them began well.
            now, backend = time.monotonic(), response.backend
            backend.count_failure(request.client, request.fingerprint, now)
            self._quarantine.note(pool, request, backend, error, now)
            raise
        finally:
            if not response.complete:
                response.close()

    async def _first_response(
        self, pool: Pool, request: UpstreamRequest, end: float, only: Backend | None
    ) -> UpstreamResponse:
        """Try replicas until one responds, the attempts are used up, or a retry would not help.

        Example with `retries: 2` and the replicas a, b and c: a refuses the connection, b returns 503, c
        responds, and the client sees the response of c. But if a returns 400, so would b and c: the client
        gets the 400 at once. And if a has the request and closes the connection, the request may have killed
        it, and would kill b and c: the client gets a 502. `may_move_on` tells them apart.

        only: the one replica that may be tried; None if any may.
        """
        tried: set[Backend] = set()
        failures: list[GatewayError] = []
        pool.retry_budget.count_request(time.monotonic())
        for _ in range(1 + pool.retries):
            backend = only or pool.pick(time.monotonic(), tried, request.affinity)
            if backend is None or backend in tried:
                break
            if failures and costs(failures[-1]) and not pool.retry_budget.take(time.monotonic()):
                break
            tried.add(backend)
            try:
                if backend.refused or request.amendment is not AS_PLANNED:
                    await adapt(backend, request)
                try:
                    return await self._attempt(backend, request, end, pool)
                except PartRefused as refused:
                    amendment = refused.amendment
                except BackendDisconnected as error:
                    if not error.stale:
                        raise
                    amendment = None
                return await self._ask_again(backend, request, end, pool, amendment)
            except GatewayError as error:
                failures.append(error.detached())
                late = asyncio.get_running_loop().time() >= end
                if late or not may_move_on(failures, resend_lost=pool.resend_lost):
                    break
                number = len(request.tried)
                log.warning("backend %s, attempt %d: %s (%s)", backend.name, number, error, error.detail)
        raise failures[-1].detached() if failures else _no_backend(pool)

    async def _ask_again(
        self, backend: Backend, request: UpstreamRequest, end: float, pool: Pool, amendment: Amendment | None
    ) -> UpstreamResponse:
        """Have a replica respond that refused a part of a request, or has not read it.

        A refused request is amended until the replica takes it. One that was lost to an idle connection that
        was closed is sent once more. If no connection can be opened then, the replica was killed rather than
        the connection closed.

        amendment: how to ask again; None for a lost request.
        """
        first = len(request.tried) - 1
        while True:
            if amendment:
                del request.tried[first:]  # the next attempt is the same one
                await amend(backend, request, amendment)
            try:
                # Over a new connection: vLLM resets some after a refusal, which it does not announce.
                response = await self._attempt(backend, request, end, pool, fresh=True)
            except PartRefused as refused:
                amendment = refused.amendment
            except NoBackend as error:
                if amendment or error.reached:
                    raise
                killed = BackendDisconnected("The backend closed the connection and accepts no other")
                self._quarantine.note(pool, request, backend, killed, time.monotonic())
                raise killed from None
            else:
                if request.amendment.lasting:
                    remember_refused(backend, request.amendment)
                return response

    async def _attempt(
        self, backend: Backend, request: UpstreamRequest, end: float, pool: Pool, *, fresh: bool = False
    ) -> UpstreamResponse:
        """Send the request to one replica and wait until there is enough to commit to its response.

        fresh: over a new connection.
        """
        timeouts, sent = pool.timeouts, time.monotonic()
        request.tried.append(backend.name)
        backend.start_request(sent)
        limit = end  # responses other than streams begin only when the answer is complete
        if request.stream:
            limit = min(asyncio.get_running_loop().time() + timeouts.first_byte, end)
        deadline = Deadline(backend, request, timeouts, limit, end)
        response: HttpResponse | None = None
        try:
            kept = None if fresh else self._client.kept(backend.origin, timeouts.connection_age)
            connection = kept or await self._connect(backend, deadline, timeouts.connect)
            body = request.amended or request.body
            response = connection.ask(request.head(backend, len(body)), body)
            self._deadlines.watch(deadline, response)
            return await _begun(backend, request, response, sent)
        except BaseException as error:  # cancellation too: the slot must be freed
            if response is not None:
                response.close()
            now = time.monotonic()
            backend.fail_request(error, request.client, request.fingerprint, now)
            self._quarantine.note(pool, request, backend, error, now)
            raise
        finally:
            self._deadlines.forget(deadline)

    async def _connect(self, backend: Backend, deadline: Deadline, seconds: float) -> Connection:
        """Raises: NoBackend, BackendTimeout."""
        try:
            async with asyncio.timeout_at(deadline.connected_by):
                return await self._client.connect(backend.origin, seconds)
        except TimeoutError:
            raise deadline.missed from None


async def _begun(
    backend: Backend, request: UpstreamRequest, response: HttpResponse, sent: float
) -> UpstreamResponse:
    """Wait until there is enough of a response to commit to it.

    Raises: PartRefused, BackendError, InvalidRequest, RouteNotFound.
    """
    await response.begun()
    if response.status >= 300:
        raise _meaning(backend, request, await read_failure(response), sent)
    kind = kind_of(response, stream=request.stream, binary=request.binary)
    streams = kind == "stream"
    body = await (first_event(response) if streams else response.read(request.whole_bytes))
    if not body:
        raise BackendDisconnected("The backend sent an empty response")
    # vLLM refuses some requests inside a stream, with status 200 and an error as the first event:
    # data: {"error":{"message":"…","code":400}}. The client gets a real 400 instead.
    if streams and (error := first_error(body)):
        raise _meaning(backend, request, stream_failure(error), sent)
    backend.breaker.response_started()
    backend.lost_at = None
    return UpstreamResponse(backend, response, body, complete=not streams and response.at_end, kind=kind)


def _meaning(backend: Backend, request: UpstreamRequest, failure: Failure, sent: float) -> Exception:
    """What the failure of a request sent at `sent` means: ask again without a part of it, or an error."""
    return part_refused(request, failure.refusal) or backend.interpret(failure.error, sent, time.monotonic())


def _no_backend(pool: Pool) -> NoBackend:
    text = f"No healthy backend serves the model {pool.model!r} right now"
    causes = [f"{backend.name}: {backend.cause}" for backend in pool.backends if backend.cause]
    return NoBackend(text, retry_after=pool.health.interval, detail="; ".join(causes) or None)
