"""Keeps what a client has not read yet of its stream, so that the backend need not wait for the client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from gateway.errors import ClientClosed

_ALWAYS = 1 << 18  # bytes that every stream may leave unread, however much the others do
_MOST = 1 << 24  # bytes that one stream may leave unread
_MEBIBYTE = 1 << 20


class UnreadMemory:
    """Memory for what all clients together have not read yet."""

    def __init__(self, limit: int) -> None:
        """limit: in bytes."""
        self._limit = limit
        self.used = 0

    def has_room(self, unread: int) -> bool:
        """Whether a stream with so many unread bytes need not wait for its client."""
        return unread <= _ALWAYS or (unread <= _MOST and not self.exhausted)

    @property
    def exhausted(self) -> bool:
        """All memory is in use, so a client that takes nothing harms others."""
        return self.used > self._limit


class Outbox:
    """The unread blocks of one stream, which a task of its own sends in their order."""

    def __init__(
        self, send: Callable[[bytes], Awaitable[None]], memory: UnreadMemory, patience: float
    ) -> None:
        """send: sends a block, and waits while the client does not read.

        patience: seconds in which the client must take a block while the memory is exhausted.
        """
        self._send = send
        self._memory = memory
        self._patience = patience
        self._blocks: deque[bytes] = deque()
        self._unread = 0
        self._taken = asyncio.Event()
        """Set whenever the client has taken a block."""
        self._sending: asyncio.Task[None] | None = None

    @property
    def empty(self) -> bool:
        """Everything has been sent."""
        return not self._unread

    async def put(self, block: bytes) -> None:
        """Send a block after those that are unread. Waits only if there is no room for more.

        Raises: ClientClosed.
        """
        self._blocks.append(block)
        self._count(len(block))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())
        while not self._memory.has_room(self._unread):
            self._taken.clear()
            try:
                async with asyncio.timeout(self._patience):
                    await self._taken.wait()
            except TimeoutError:
                if self._memory.exhausted:
                    raise ClientClosed("The client reads too slowly") from None

    async def drain(self, seconds_per_mebibyte: float) -> None:
        """Wait until the client has taken everything. Raises: ClientClosed."""
        if self._sending is None:
            return
        try:
            async with asyncio.timeout(seconds_per_mebibyte * (1 + self._unread / _MEBIBYTE)):
                await self._sending
        except TimeoutError:
            raise ClientClosed("The client reads too slowly") from None

    async def close(self) -> None:
        """Forget what is unread."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        self._blocks.clear()
        self._count(-self._unread)

    async def _send_all(self) -> None:
        while self._blocks:
            block = self._blocks.popleft()
            await self._send(block)
            self._count(-len(block))
            self._taken.set()

    def _count(self, size: int) -> None:
        self._unread += size
        self._memory.used += size
