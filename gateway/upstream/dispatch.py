"""Sends requests to backends: picks a replica, retries, and hands out one open response at a time.

The commit point is the moment `open` hands out a response. Before it nothing has been sent to the client, so
another replica may be tried. After it the response can only pass or break.
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

_ERROR_BYTES = 65_536  # read of a backend's error body
_EVENT_BYTES = 1 << 20  # waited for before a first event is passed on in pieces


class Upstream:
    """The one HTTP client to all backends."""

    def __init__(self) -> None:
        # vLLM closes idle connections after 5 s; leaving earlier avoids the race for the last one
        self._client = HttpClient(keep_alive=4)

    def close_idle(self) -> None:
        """Close the connections that will not be used again."""
        self._client.close_idle()

    def close(self) -> None:
        """Close all connections, those in use too."""
        self._client.close()

    async def ask(
        self, replica: Replica, method: bytes, path: str, body: bytes = b"", *, connect: float
    ) -> tuple[int, bytes]:
        """One small question outside the request path (health, probe, embedding): status and body.

        connect: seconds to open a connection.
        Raises: NoBackend, BackendDisconnected, BackendError.
        """
        try:
            return await self._ask(replica, method, path, body, connect)
        except BackendDisconnected:
            if method != b"GET":
                raise
            # a kept connection may just have been closed
            return await self._ask(replica, method, path, body, connect)

    async def _ask(
        self, replica: Replica, method: bytes, path: str, body: bytes, connect: float
    ) -> tuple[int, bytes]:
        kind = [(b"Content-Type", b"application/json")] if body else []
        headers = [*_authorization(replica), *kind]
        response = await self._client.request(method, replica.base, path, headers, body, connect=connect)
        try:
            return response.status, await response.read()
        finally:
            response.close()

    @asynccontextmanager
    async def open(self, pool: Pool, call: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """Send a request and wait for the response: all of it, or the first block of a stream.

        Leaving the context early closes the connection, which tells the backend to stop.

        Raises: BackendError and its subclasses, InvalidRequest for what the backend refuses.
        """
        end = asyncio.get_running_loop().time() + pool.timeouts.total
        response = await self._reply(pool, call, end)
        try:
            if call.stream:
                async with response.within(pool.timeouts.idle, end):
                    yield response
            else:
                response.close()  # all of it is here, however slowly the client takes it
                yield response
            response.backend.breaker.record_success()
        except BackendError:
            response.backend.breaker.record_failure(time.monotonic())
            raise
        finally:
            response.close()

    async def _reply(self, pool: Pool, call: UpstreamRequest, end: float) -> UpstreamResponse:
        """Try replicas until one answers, the attempts are used up, or the fault is the request's own."""
        tried: set[Backend] = set()
        failure: GatewayError = NoBackend(
            f"No healthy backend serves the model {pool.model!r} right now",
            retry_after=pool.health.interval,
        )
        for _ in range(1 + pool.retries):
            backend = pool.pick(time.monotonic(), tried, call.affinity)
            # the same replica again only where a kept connection may have been closed under us
            if backend is None or (backend in tried and not isinstance(failure, BackendDisconnected)):
                break
            tried.add(backend)
            call.tried.append(backend.name)
            try:
                return await self._attempt(backend, call, end, pool.timeouts)
            except GatewayError as error:
                failure = error
                if not error.retryable or asyncio.get_running_loop().time() >= end:
                    break
                number = len(call.tried)
                log.warning("backend %s, attempt %d: %s (%s)", backend.name, number, error, error.detail)
        raise failure

    async def _attempt(
        self, backend: Backend, call: UpstreamRequest, end: float, timeouts: Timeouts
    ) -> UpstreamResponse:
        limit = asyncio.get_running_loop().time() + timeouts.first_byte if call.stream else end
        backend.take(time.monotonic())
        response: HttpResponse | None = None
        try:
            async with asyncio.timeout_at(min(limit, end)):
                headers = [*call.headers, *_authorization(backend.replica)]
                response = await self._client.request(
                    b"POST", backend.replica.base, call.path, headers, call.body, connect=timeouts.connect
                )
                if response.status >= 300:
                    raise await _error_of(response)
                _check_content_type(response, call)
                body = await (_first_event(response) if call.stream else response.read())
                if not body:
                    raise BackendDisconnected("The backend sent an empty response")
                if call.stream and body.startswith((b'data: {"error"', b'data:{"error"')):
                    raise stream_error(body)
        except TimeoutError as error:
            self._end(backend, response, failure := BackendTimeout("The backend did not response in time"))
            raise failure from error
        except BaseException as error:
            self._end(backend, response, error)
            raise
        backend.breaker.response_started()
        return UpstreamResponse(backend, response, body)

    @staticmethod
    def _end(backend: Backend, response: HttpResponse | None, failure: BaseException) -> None:
        if response is not None:
            response.close()
        backend.release(failure, time.monotonic())


def _authorization(replica: Replica) -> Headers:
    if replica.api_key is None:
        return []
    return [(b"Authorization", f"Bearer {replica.api_key.get_secret_value()}".encode())]


# --- what an response means ---------------------------------------------------------


def _check_content_type(response: HttpResponse, call: UpstreamRequest) -> None:
    expected = "text/event-stream" if call.stream else "application/json"
    found = response.header(b"content-type")
    if not found.lower().startswith(expected):
        raise BackendError(
            "The backend sent an response that is not of the expected kind",
            detail=f"content type {found!r} instead of {expected}",
        )


async def _first_event(response: HttpResponse) -> bytes:
    """The first block of a stream, with at least one whole event: less than that commits to nothing."""
    block = await response.block()
    while block and b"\n\n" not in block and b"\n\r\n" not in block and len(block) < _EVENT_BYTES:
        more = await response.block()
        if not more:
            raise BackendDisconnected("The backend closed before its response was complete")
        block += more
    return block


async def _error_of(response: HttpResponse) -> GatewayError:
    """The error for an response with a status of 300 and above."""
    after = response.header(b"retry-after")
    body = await response.read(_ERROR_BYTES)
    return backend_error(
        response.status, body, retry_after=min(float(after), 3600) if after.isdecimal() else 1
    )
