"""The requests that wait for room in a budget. No client can fill the queue for the others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Turn:
    """How long a request may wait, and for whom it waits."""

    seconds: float
    """The longest wait; 0 refuses at once."""
    most: int
    """How many requests may wait at the same time."""
    client: str | None = None
    """The name of the API key; None without keys."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One request that waits."""

    client: str | None
    _ousted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ousted(self) -> bool:
        """Whether it lost its place to a client with fewer requests in the queue."""
        return self._ousted.is_set()

    def oust(self) -> None:
        self._ousted.set()

    async def pause(self, seconds: float) -> None:
        """Wait this long, or until the place is lost."""
        try:
            async with asyncio.timeout(seconds):
                await self._ousted.wait()
        except TimeoutError:
            return


class WaitingLine:
    """The places of the queue, by client. Without I/O, apart from the pauses of its waiters."""

    def __init__(self) -> None:
        self._waiting: dict[str | None, list[Waiter]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, turn: Turn) -> Waiter | None:
        """Take a place; None if the queue is full and the client has its share.

        In a full queue, the newest request of the client with the most of them loses its place, if the new
        one's client has at least two fewer. So in the end all clients have equally many.
        """
        own = len(self._waiting.get(turn.client, ()))
        if self._count >= turn.most:
            fullest = max(self._waiting.values(), key=len, default=[])
            if len(fullest) < own + 2:
                return None
            newest = fullest[-1]
            newest.oust()
            self.leave(newest)
        waiter = Waiter(turn.client)
        self._waiting.setdefault(turn.client, []).append(waiter)
        self._count += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Give the place back; again does nothing."""
        waiters = self._waiting.get(waiter.client, [])
        if waiter not in waiters:
            return
        waiters.remove(waiter)
        self._count -= 1
        if not waiters:
            del self._waiting[waiter.client]
