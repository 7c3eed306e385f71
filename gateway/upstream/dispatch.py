"""Sends a request to one of a model's replicas: picks the replica, retries, and opens the response.

The commit point is the moment `Upstream.open` returns a response: a complete body, or a stream with its first
complete event. Of a body over 512 KiB, its beginning is enough, so that it is never held whole. Before the
commit point, the client has received nothing, so another replica can be tried. After it, the client may have
read the status and the first tokens, so a failure can only end the response.

Example: replica a accepts a stream and closes the connection. If no event has arrived, the client gets the
stream of replica b and notices nothing. If the client has already received `data: {"choices":[{"delta":
{"content":"The"}}]}`, replica b cannot continue that sentence, and the stream ends with an error event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config.models import Replica, Timeouts
from gateway.errors import (
    BackendDisconnected,
    BackendError,
    BackendTimeout,
    GatewayError,
    NoBackend,
)
from gateway.http.headers import Headers
from gateway.upstream.errors import backend_error, stream_error
from gateway.upstream.http1 import HttpClient, HttpResponse
from gateway.upstream.pool import Backend, Pool
from gateway.upstream.response import UpstreamRequest, UpstreamResponse

log = logging.getLogger("thinkmeter.upstream")

_ERROR_BYTES = 65_536  # the rest of a longer error body is not read
_ASKED_BYTES = 1 << 24  # longest response to a request of our own: a list of models, or an embedding
_EVENT_BYTES = 1 << 20  # a first event longer than this is passed on before it is complete
_WHOLE_BYTES = 1 << 19  # a whole response longer than this is passed on before it is complete


class Upstream:
    """The HTTP client to all backends."""

    def __init__(self) -> None:
        # vLLM closes connections that are idle for 5 s. Stop using them earlier, because a request sent just
        # as vLLM closes its connection is lost.
        self._client = HttpClient(keep_alive=4)

    def close_idle(self) -> None:
        """Close connections that have been idle for too long to be used again."""
        self._client.close_idle()

    def close(self) -> None:
        """Close all connections, including those in use."""
        self._client.close()

    async def ask(
        self,
        replica: Replica,
        method: bytes,
        path: str,
        body: bytes = b"",
        *,
        connect: float,
        repeatable: bool = False,
    ) -> tuple[int, bytes]:
        """Send a small request outside the request path (health check, probe, embedding).

        Returns the status and the body. `connect` is the time to open a connection, in seconds.
        repeatable: a POST may be sent twice, as a GET always may.

        Raises: NoBackend, BackendDisconnected, BackendError.
        """
        try:
            return await self._ask(replica, method, path, body, connect)
        except BackendDisconnected:
            if method != b"GET" and not repeatable:
                raise
            # the server may have closed the kept-alive connection just then
            return await self._ask(replica, method, path, body, connect)

    async def _ask(
        self, replica: Replica, method: bytes, path: str, body: bytes, connect: float
    ) -> tuple[int, bytes]:
        kind = [(b"Content-Type", b"application/json")] if body else []
        headers = [*_authorization(replica), *kind]
        response = await self._client.request(method, replica.base, path, headers, body, connect=connect)
        try:
            body = await response.read(_ASKED_BYTES)
        finally:
            response.close()
        if len(body) > _ASKED_BYTES:
            raise BackendError("The backend sent too long a response", detail=f"over {_ASKED_BYTES} bytes")
        return response.status, body

    @asynccontextmanager
    async def open(self, pool: Pool, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """Send a request and wait for its response: the complete body, or the first block of a stream.

        Leaving the context early closes the connection, which tells the backend to stop generating.

        Raises: BackendError and its subclasses, InvalidRequest, RouteNotFound.
        """
        end = asyncio.get_running_loop().time() + pool.timeouts.total
        response = await self._first_response(pool, request, end)
        request.body = b""
        try:
            if response.complete:
                # Free the slot at the replica now, however slowly the client reads.
                response.close()
                yield response
            else:
                async with response.timeouts(pool.timeouts.idle, end):
                    yield response
            response.backend.breaker.record_success()
        except BackendError:
            # The caller also raises it inside the `yield`, when a stream ends without `data: [DONE]`. A
            # replica whose streams break is failing, although each of them began well.
            response.backend.breaker.record_failure(time.monotonic())
            raise
        finally:
            response.close()

    async def _first_response(self, pool: Pool, request: UpstreamRequest, end: float) -> UpstreamResponse:
        """Try replicas until one responds, the attempts are used up, or a retry would not help.

        Example with `retries: 2` and the replicas a, b and c: a refuses the connection, b returns 503, c
        responds, and the client sees the response of c. But if a returns 400, so would b and c: the client
        gets the 400 at once. `GatewayError.retryable` tells the two apart.
        """
        tried: set[Backend] = set()
        failure: GatewayError | None = None
        for _ in range(1 + pool.retries):
            backend = pool.pick(time.monotonic(), tried, request.affinity)
            # `pick` returns a replica a second time if no other is left. Asking it again helps only after a
            # closed connection: that may have been an idle one, which the replica closed just as we used it.
            if backend is None or (backend in tried and not isinstance(failure, BackendDisconnected)):
                break
            tried.add(backend)
            request.tried.append(backend.name)
            try:
                return await self._attempt(backend, request, end, pool.timeouts)
            except GatewayError as error:
                failure = error.detached()
                if not error.retryable or asyncio.get_running_loop().time() >= end:
                    break
                number = len(request.tried)
                log.warning("backend %s, attempt %d: %s (%s)", backend.name, number, error, error.detail)
        failure = failure or NoBackend(
            f"No healthy backend serves the model {pool.model!r} right now", retry_after=pool.health.interval
        )
        raise failure.detached()

    async def _attempt(
        self, backend: Backend, request: UpstreamRequest, end: float, timeouts: Timeouts
    ) -> UpstreamResponse:
        """Send the request to one replica and wait until there is enough to commit to its response."""
        # The first-byte timeout is for streams. Other responses begin only when the answer is complete.
        limit = asyncio.get_running_loop().time() + timeouts.first_byte if request.stream else end
        backend.start_request(time.monotonic())
        response: HttpResponse | None = None
        try:
            async with asyncio.timeout_at(min(limit, end)):
                headers = [*request.headers, *_authorization(backend.replica)]
                response = await self._client.request(
                    b"POST",
                    backend.replica.base,
                    request.path,
                    headers,
                    request.body,
                    connect=timeouts.connect,
                )
                if response.status >= 300:
                    raise await _error_of(response)
                _check_content_type(response, request)
                body = await (_first_event(response) if request.stream else response.read(_WHOLE_BYTES))
                if not body:
                    raise BackendDisconnected("The backend sent an empty response")
                # vLLM refuses some requests inside a stream, with status 200 and an error as the first event:
                # data: {"error":{"message":"…","code":400}}. The client gets a real 400 instead.
                if request.stream and body.startswith((b'data: {"error"', b'data:{"error"')):
                    raise stream_error(body)
        except TimeoutError:
            late = "The backend did not respond in time"
            self._fail(backend, response, BackendTimeout(late))
            raise BackendTimeout(late) from None
        except BaseException as error:  # cancellation too: the slot must be freed
            self._fail(backend, response, error)
            raise
        backend.breaker.response_started()
        return UpstreamResponse(backend, response, body, complete=not request.stream and response.at_end)

    @staticmethod
    def _fail(backend: Backend, response: HttpResponse | None, failure: BaseException) -> None:
        if response is not None:
            response.close()
        backend.fail_request(failure, time.monotonic())


def _authorization(replica: Replica) -> Headers:
    if replica.api_key is None:
        return []
    return [(b"Authorization", f"Bearer {replica.api_key.get_secret_value()}".encode())]


# --- reading a response up to the commit point ----------------------------------------------------------


def _check_content_type(response: HttpResponse, request: UpstreamRequest) -> None:
    expected = "text/event-stream" if request.stream else "application/json"
    found = response.header(b"content-type")
    if not found.lower().startswith(expected):
        raise BackendError(
            "The backend sent a response of an unexpected content type",
            detail=f"content type {found!r} instead of {expected}",
        )


async def _first_event(response: HttpResponse) -> bytes:
    """Read a stream until its first event is complete; returns everything read so far.

    Committing earlier gains nothing: no client can use half an event such as `data: {"choices":[{"de`.
    """
    begun = await response.block()
    if not begun or _ends_event(begun):
        return begun
    event = bytearray(begun)
    while len(event) < _EVENT_BYTES:
        more = await response.block()
        if not more:
            raise BackendDisconnected("The backend closed the connection before its response was complete")
        end = bytes(event[-2:]) + more  # only this can complete it: searching all again would be quadratic
        event += more
        if _ends_event(end):
            break
    return bytes(event)


def _ends_event(block: bytes) -> bool:
    """Whether a block holds the empty line that ends an event; lines end with LF or CRLF."""
    return b"\n\n" in block or b"\n\r\n" in block


async def _error_of(response: HttpResponse) -> GatewayError:
    """The error for a response with a status of 300 or above."""
    after = response.header(b"retry-after")
    body = (await response.read(_ERROR_BYTES))[:_ERROR_BYTES]
    return backend_error(
        response.status, body, retry_after=min(float(after), 3600) if after.isdecimal() else 1
    )
