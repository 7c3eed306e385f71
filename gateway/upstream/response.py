"""The open response of a replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.errors import (
    BackendTimeout,
    ClientClosed,
)
from gateway.http.headers import returned
from gateway.openai_api.compiled_events import RepeatedEvents
from gateway.openai_api.counts import loose_object
from gateway.openai_api.usage import TokenUsage, from_backend, reported_usage
from gateway.upstream.arriving import HttpResponse
from gateway.upstream.beginning import Kind
from gateway.upstream.pool import Backend

_AT_ONCE = 1 << 14  # bytes of a body; reading more takes milliseconds in which no other request is served


def _part_end(block: bytes, start: int) -> int:
    """Where the part of a block ends that is read at once: between two events, if there are any."""
    most = start + _AT_ONCE
    if most >= len(block):
        return len(block)
    end = block.rfind(b"\n\n", start, most)
    return most if end < 0 else end + 2


class UpstreamResponse:
    """A response past the commit point."""

    holds_back = False
    """The backend may be at work although it sends nothing."""
    thinking: Callable[[], bool] | None = None
    """Returns whether a thought may be under way that the backend does not show."""
    _latest = 0.0
    _holds_slot = True
    _client_reads = False
    """The latest block is being sent to the client, and nothing is awaited from the backend."""
    _pauses = False
    _progress = 0.0
    """The performance counter when the client or the backend last made progress, or later `latest`."""

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

    @property
    def at_end(self) -> bool:
        """The whole body has been read."""
        return self._response.at_end and not self.body

    @property
    def latest(self) -> float:
        """The performance counter when the latest block came."""
        passage = self._response.diverted
        return self._latest if passage is None else max(self._latest, passage.latest)

    @latest.setter
    def latest(self, now: float) -> None:
        self._latest = now

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
                self._progress = time.perf_counter()
            block = await self._response.block()
            self._progress = time.perf_counter()

    async def pass_on(self, take: Callable[[bytes], bool]) -> None:
        """Give the body to a function as it arrives, in blocks of `_AT_ONCE` bytes at most.

        No task wakes up for a block: `take` is called in the turn of the event loop in which it arrives.
        Only more at once is divided among several turns. `take` sets `latest`.

        Returns at the end of the body, when `take` returns False, and whenever nothing has come for the pause
        given to `timeouts`. Then it can be called again.

        Raises: BackendDisconnected, BackendError, and what `take` raises.
        """
        self._pauses = True
        while True:
            block, self.body = self.body, b""
            end = 0
            while (start := end) < len(block):
                if start:
                    await asyncio.sleep(0)
                end = _part_end(block, start)
                if not take(block[start:end]):
                    self.body = block[end:]
                    return
            if self._response.at_end:
                return
            self.body = await self._response.receive(take, _AT_ONCE)
            if not self.body:
                return

    def open_shortcut(self, shortcut: Callable[[bytes], bytes] | None) -> None:
        """Have chunks of the body given to a function as they come, with their framing; for use by `take`.

        The function returns the rest of them, which `take` gets. It sets `latest` too.
        """
        self._response.shortcut = shortcut

    def divert(
        self,
        client: asyncio.Transport,
        events: RepeatedEvents,
        beginning: bytes,
        unsent: Callable[[bytes], None],
    ) -> bool:
        """Have repeated events passed to a client in C; see `HttpResponse.divert`. It sets `latest` too."""
        return self._response.divert(client, events, beginning, unsent)

    @property
    def diverted_blocks(self) -> int:
        """How many blocks passed when the stream was diverted last."""
        passage = self._response.diverted
        return passage.blocks if passage else 0

    async def wait_for_client(self, reading: Awaitable[None]) -> None:
        """Wait until the client has read enough. Under `timeouts`, the client is to blame for the time."""
        self._client_reads = True
        await reading
        self._client_reads = False
        self._progress = time.perf_counter()

    @asynccontextmanager
    async def timeouts(self, idle: float, end: float, pause: float = 0) -> AsyncIterator[UpstreamResponse]:
        """Read the response under two timeouts: `idle` seconds without progress, and the loop time `end`.

        A backend that may be at work in silence has until `end`, unless it fails its health checks.

        pause: seconds of silence after which `pass_on` returns, and again each time they have passed;
        0 for half of `idle`.

        Raises: BackendTimeout, ClientClosed.
        """
        # Moving a deadline with every block would cost a new timer each time. So a block only notes the time,
        # and a timer looks at it now and then. A stream that falls silent is ended after 60 to 67.5 s if idle
        # is 60 s.
        loop = asyncio.get_running_loop()
        self._progress = paused = time.perf_counter()
        deadline = asyncio.timeout_at(end)
        pause = pause or idle / 2
        step = min(idle / 8, pause / 2)

        def look() -> None:
            nonlocal paused
            now, heard = time.perf_counter(), max(self._progress, self.latest)
            if now - heard >= idle and (self._client_reads or not self._may_be_at_work()):
                deadline.reschedule(loop.time())
                return
            if self._pauses and now - max(heard, paused) >= pause:
                paused = now
                self._response.interrupt()
            self._timer = loop.call_later(step, look)

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
        if self.backend.healthy is False:
            return False
        return self.holds_back or (self.thinking is not None and self.thinking())

    def close(self) -> None:
        """Free the slot at the replica. Cuts the connection if the response is not complete."""
        self._response.close()
        if self._holds_slot:
            self._holds_slot = False
            self.backend.in_flight -= 1
