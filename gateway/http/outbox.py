"""Keeps what a client has not read yet of its stream, so that the backend need not wait for the client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

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


class Client(Protocol):
    """The client's side of a connection."""

    @property
    def paused(self) -> bool:
        """The client does not read what was sent to it."""

    def send_now(self, block: bytes) -> None:
        """Send a part of a body without waiting."""

    def call_when_reading(self, callback: Callable[[], object]) -> None:
        """Call once when the client reads again, or leaves."""


class Outbox:
    """The unread blocks of one stream. They are sent in their order when the client reads again."""

    __slots__ = ("_blocks", "_change", "_client", "_memory", "_patience", "_unread", "_waits")

    def __init__(self, client: Client, memory: UnreadMemory, patience: float) -> None:
        """patience: seconds in which the client must take a block while the memory is exhausted."""
        self._client = client
        self._memory = memory
        self._patience = patience
        self._blocks: deque[bytes] = deque()
        self._unread = 0
        self._change: asyncio.Future[None] | None = None
        """Done when the client has taken something."""
        self._waits = False
        """`_send` will be called when the client reads."""

    @property
    def empty(self) -> bool:
        """Everything has been sent."""
        return not self._unread

    def put(self, block: bytes) -> bool:
        """Send a block after those that are unread. Returns whether there is room for more."""
        if not self._blocks and not self._client.paused:
            self._client.send_now(block)
            return True
        self._blocks.append(block)
        self._count(len(block))
        self._wait()
        return self._memory.has_room(self._unread)

    async def room(self) -> None:
        """Wait until there is room for more. Raises: ClientClosed."""
        while not self._memory.has_room(self._unread):
            try:
                async with asyncio.timeout(self._patience):
                    await self._taken()
            except TimeoutError:
                if self._memory.exhausted:
                    raise ClientClosed("The client reads too slowly") from None

    async def drain(self, seconds_per_mebibyte: float) -> None:
        """Wait until the client has taken everything. Raises: ClientClosed."""
        try:
            async with asyncio.timeout(seconds_per_mebibyte * (1 + self._unread / _MEBIBYTE)):
                while self._unread:
                    await self._taken()
        except TimeoutError:
            raise ClientClosed("The client reads too slowly") from None

    def close(self) -> None:
        """Forget what is unread."""
        self._blocks.clear()
        self._count(-self._unread)

    async def _taken(self) -> None:
        self._change = asyncio.get_running_loop().create_future()
        await self._change

    def _wait(self) -> None:
        if self._blocks and not self._waits:
            self._waits = True
            self._client.call_when_reading(self._send)

    def _send(self) -> None:
        self._waits = False
        while self._blocks and not self._client.paused:
            block = self._blocks.popleft()
            self._client.send_now(block)
            self._count(-len(block))
        self._wait()
        if self._change and not self._change.done():
            self._change.set_result(None)

    def _count(self, size: int) -> None:
        self._unread += size
        self._memory.used += size
