"""A request to a model's replicas, and the open response to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.errors import (
    BackendTimeout,
    ClientClosed,
)
from gateway.http.headers import Headers, returned
from gateway.openai_api.amendments import AS_PLANNED, Amendment
from gateway.upstream.amending import Amendable
from gateway.upstream.http1 import HttpResponse
from gateway.upstream.pool import Backend

_AT_ONCE = 1 << 14  # bytes of a body; reading more takes milliseconds in which no other request is served


@dataclass(slots=True)
class UpstreamRequest:
    """A request to the replicas of a model. Every attempt sends the same body, but for amendments."""

    path: str
    body: bytes
    """Empty past the commit point, when no attempt can follow."""
    headers: Headers
    stream: bool = False
    affinity: str | None = None
    """Requests with the same value go to the same replica."""
    client: str = ""
    """Who sends it: the name of the key, or an address."""
    fingerprint: bytes = b""
    """Identifies what the client sent, also when it sends it again."""
    whole_bytes: int = 1 << 19
    """A response longer than this is passed on before it is complete, unless it is a stream."""
    tried: list[str] = field(default_factory=list)
    """Names of the replicas it was sent to, in order; filled in by `Upstream.open`."""
    draft: Amendable | None = None
    """Writes it anew for a replica that refuses a part of it; None if nothing can be changed."""
    amendment: Amendment = AS_PLANNED
    """What the replica that is asked now does not get."""
    amended: bytes = b""
    """The body with the amendment; empty without one."""


class UpstreamResponse:
    """A response past the commit point."""

    def __init__(self, backend: Backend, response: HttpResponse, body: bytes, *, complete: bool) -> None:
        """`body` is the beginning of the body, or with `complete` all of it."""
        self.backend = backend
        self.status = response.status
        self.headers = returned(response.headers)
        self.body = body
        self.complete = complete
        length = response.header(b"content-length")
        self.length = int(length) if length.isdecimal() else None
        """The size of the body in bytes, if the backend has declared it."""
        self._response = response
        self._holds_slot = True
        self._client_reads = False
        """The latest block is being sent to the client, and nothing is awaited from the backend."""
        self._touched: Callable[[], None] = lambda: None
        """Called whenever the client or the backend made progress."""

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, including the first block, in blocks of `_AT_ONCE` bytes at most.

        Raises: BackendDisconnected, BackendError.
        """
        block, self.body = self.body, b""
        while block:
            for start in range(0, len(block), _AT_ONCE):
                if start:
                    await asyncio.sleep(0)
                self._client_reads = True
                yield block[start : start + _AT_ONCE]
                self._client_reads = False
                self._touched()
            block = await self._response.block()
            self._touched()

    @asynccontextmanager
    async def timeouts(self, idle: float, end: float) -> AsyncIterator[UpstreamResponse]:
        """Read the response under two timeouts: `idle` seconds without progress, and the loop time `end`.

        Raises: BackendTimeout, ClientClosed.
        """
        # Every block should move the idle deadline, but each move costs a new timer in the event loop. So the
        # deadline is moved at most once per eighth of the idle timeout, and set an eighth later to make up.
        #
        # Example: idle is 60 s, and a block arrives every 20 ms. The deadline is moved every 7.5 s, not 50
        # times per second, and set to 67.5 s from then. A stream that falls silent is thus ended after 60 to
        # 67.5 s of silence.
        loop = asyncio.get_running_loop()
        moved = loop.time()

        def touched() -> None:
            nonlocal moved
            now = loop.time()
            if now - moved > idle / 8:
                moved = now
                deadline.reschedule(min(now + idle * 1.125, end))

        self._touched = touched
        try:
            async with asyncio.timeout_at(min(moved + idle * 1.125, end)) as deadline:
                yield self
        except TimeoutError:
            # which of the two were we waiting for when the time ran out?
            if self._client_reads:
                raise ClientClosed("The client stopped reading") from None
            which = "timeouts.total" if loop.time() >= end else f"timeouts.idle, {idle:g} s"
            text = "The backend stopped sending before its response was complete"
            raise BackendTimeout(text, detail=which) from None

    def close(self) -> None:
        """Free the slot at the replica. Cuts the connection if the response is not complete."""
        self._response.close()
        if self._holds_slot:
            self._holds_slot = False
            self.backend.in_flight -= 1
