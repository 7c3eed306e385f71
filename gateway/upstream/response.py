"""The open response of a replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.errors import (
    BackendTimeout,
    ClientClosed,
)
from gateway.http.headers import returned
from gateway.openai_api.counts import loose_object
from gateway.openai_api.usage import TokenUsage, from_backend, reported_usage
from gateway.upstream.beginning import Kind
from gateway.upstream.http1 import HttpResponse
from gateway.upstream.pool import Backend

_AT_ONCE = 1 << 14  # bytes of a body; reading more takes milliseconds in which no other request is served


class UpstreamResponse:
    """A response past the commit point."""

    def __init__(
        self, backend: Backend, response: HttpResponse, body: bytes, *, complete: bool, kind: Kind = "json"
    ) -> None:
        """`body` is the beginning of the body, or with `complete` all of it."""
        self.kind = kind
        self.backend = backend
        self.status = response.status
        self.headers = returned(response.headers)
        self.body = body
        self.complete = complete
        self._response = response
        self._holds_slot = True
        self._client_reads = False
        """The latest block is being sent to the client, and nothing is awaited from the backend."""
        self.holds_back = False
        """The backend may be at work although it sends nothing."""
        self.thinking: Callable[[], bool] = lambda: False
        """Returns whether a thought may be under way that the backend does not show."""
        self.latest = 0.0
        """The performance counter when the latest block came."""
        self._pauses = False
        self._touched: Callable[[], None] = lambda: None
        """Called whenever the client or the backend made progress."""

    @property
    def length(self) -> int | None:
        """The size of the body in bytes, if the backend has declared it."""
        length = self._response.header(b"content-length")
        return int(length) if length.isdecimal() else None

    @property
    def vector_usage(self) -> TokenUsage:
        """The token usage of embeddings in bytes, which vLLM reports in a header, or not at all."""
        metadata = loose_object(self._response.header(b"metadata").encode("latin-1")) or {}
        usage = reported_usage(metadata.get("usage"))
        return from_backend(usage, 0, 0) if usage else TokenUsage()

    async def blocks(self, *, pauses: bool = False) -> AsyncIterator[bytes]:
        """The body as it arrives, including the first block, in blocks of `_AT_ONCE` bytes at most.

        pauses: yield b"" whenever nothing has come for the time given to `timeouts`.

        Raises: BackendDisconnected, BackendError.
        """
        block, self.body = self.body, b""
        self._pauses = pauses
        while True:
            if not block:
                if not pauses or self._response.at_end:
                    return
                yield b""
            for start in range(0, len(block), _AT_ONCE):
                if start:
                    await asyncio.sleep(0)
                self._client_reads = True
                yield block[start : start + _AT_ONCE]
                self._client_reads = False
                self._touched()
            block = await self._response.block()
            if block:
                self._touched()

    @asynccontextmanager
    async def timeouts(self, idle: float, end: float, pause: float = 0) -> AsyncIterator[UpstreamResponse]:
        """Read the response under two timeouts: `idle` seconds without progress, and the loop time `end`.

        A backend that may be at work in silence has until `end`, unless it fails its health checks.

        pause: seconds of silence after which `blocks` yields b"", and again each time they have passed;
        0 for half of `idle`.

        Raises: BackendTimeout, ClientClosed.
        """
        # Moving a deadline with every block would cost a new timer each time. So a block only notes the time,
        # and a timer looks at it now and then. A stream that falls silent is ended after 60 to 67.5 s if idle
        # is 60 s.
        loop = asyncio.get_running_loop()
        heard = paused = loop.time()
        deadline = asyncio.timeout_at(end)
        pause = pause or idle / 2
        step = min(idle / 8, pause / 2)

        def touched() -> None:
            nonlocal heard
            heard = loop.time()

        def look() -> None:
            nonlocal paused
            now = loop.time()
            if now - heard >= idle and (self._client_reads or not self._may_be_at_work()):
                deadline.reschedule(now)
                return
            if self._pauses and now - max(heard, paused) >= pause:
                paused = now
                self._response.interrupt()
            self._timer = loop.call_later(step, look)

        self._touched = touched
        self._timer = loop.call_later(step, look)
        try:
            async with deadline:
                yield self
        except TimeoutError:
            # which of the two were we waiting for when the time ran out?
            if self._client_reads:
                raise ClientClosed("The client stopped reading") from None
            which = "timeouts.total" if loop.time() >= end else f"timeouts.idle, {idle:g} s"
            text = "The backend stopped sending before its response was complete"
            raise BackendTimeout(text, detail=which) from None
        finally:
            self._timer.cancel()

    def _may_be_at_work(self) -> bool:
        return self.backend.healthy is not False and (self.holds_back or self.thinking())

    def close(self) -> None:
        """Free the slot at the replica. Cuts the connection if the response is not complete."""
        self._response.close()
        if self._holds_slot:
            self._holds_slot = False
            self.backend.in_flight -= 1
