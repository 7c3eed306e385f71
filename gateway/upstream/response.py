"""One request to a backend, and the open response to it."""

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
from gateway.upstream.http1 import HttpResponse
from gateway.upstream.pool import Backend


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to a model's backends; `tried` names those it was sent to, in order."""

    path: str
    body: bytes
    headers: Headers
    stream: bool = False
    affinity: str | None = None
    tried: list[str] = field(default_factory=list)


class UpstreamResponse:
    """An response that has begun. `body` is all of it, or its first block when it streams."""

    def __init__(self, backend: Backend, response: HttpResponse, body: bytes) -> None:
        self.backend = backend
        self.status = response.status
        self.headers = returned(response.headers)
        self.body = body
        self._response = response
        self._holds_slot = True
        self._client_reads = False
        self._touched: Callable[[], None] = lambda: None

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, the first block included; raises BackendDisconnected when it breaks."""
        block = self.body
        while block:
            self._client_reads = True
            yield block
            self._client_reads = False
            self._touched()
            block = await self._response.block()
            self._touched()

    @asynccontextmanager
    async def within(self, idle: float, end: float) -> AsyncIterator[UpstreamResponse]:
        """Hold the reply under its idle and total timeouts.

        Moving a deadline costs a timer, so it is moved only every eighth of the idle timeout, by which it
        may be late.
        """
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
            async with asyncio.timeout_at(min(moved + idle, end)) as deadline:
                yield self
        except TimeoutError:
            if self._client_reads:
                raise ClientClosed("The client stopped reading") from None
            raise BackendTimeout("The backend stopped sending before its response was complete") from None

    def close(self) -> None:
        """Give back the slot and the connection; closing one that still carries an response aborts that."""
        self._response.close()
        if self._holds_slot:
            self._holds_slot = False
            self.backend.in_flight -= 1
