"""Bounds the memory that the bodies of all requests take together."""

from __future__ import annotations

import asyncio


class BodyMemory:
    """Memory for large request bodies. A body that finds no room is not read on until others are done.

    The oldest body always has room. Otherwise all could be incomplete and wait for each other. So the bodies
    take at most the limit and one body more.
    """

    def __init__(self, limit: int) -> None:
        """limit: in bytes."""
        self._limit = limit
        self._taken: dict[object, int] = {}
        """Bytes that each body takes, the oldest first."""
        self._waiting: list[asyncio.Future[None]] = []
        self.used = 0
        """Bytes that all bodies take."""

    def has_room(self, body: object, size: int) -> bool:
        """Whether a body may take so many bytes more."""
        return self.used + size <= self._limit or next(iter(self._taken), body) is body

    async def room(self, body: object, size: int) -> None:
        """Wait until `has_room`."""
        while not self.has_room(body, size):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)

    def take(self, body: object, size: int) -> None:
        """Count bytes of a body."""
        self._taken[body] = self._taken.get(body, 0) + size
        self.used += size

    def release(self, body: object) -> None:
        """Give back what a body took, if anything."""
        if (taken := self._taken.pop(body, None)) is None:
            return
        self.used -= taken
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
