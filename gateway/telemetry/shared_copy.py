"""Serves what is costly to make: made rarely, shared by all who ask, handed out at a bounded rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_REST = 4  # making the copy takes at most a fifth of the time,
_LONGEST_REST = 10.0  # but even a busy gateway makes one for each scrape of Prometheus, every 15 s by default


class SharedCopy(Generic[T]):
    """Returns a copy of at most some age. Everybody who asks while one is being made gets that one.

    If the age is 0, who asks gets a copy that was begun later, together with all others who wait for it.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        max_age: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """make: makes a copy. max_age: seconds that a copy is used; longer if it takes long to make."""
        self._make, self._max_age, self._clock = make, max_age, clock
        self._making: asyncio.Task[T] | None = None
        self._made: asyncio.Task[T] | None = None
        self._fresh_until = 0.0

    async def get(self) -> T:
        """A copy. Raises: what `make` does."""
        if self._made and self._clock() < self._fresh_until:
            return self._made.result()
        if self._making and not self._max_age():
            await asyncio.wait([self._making])
        if self._making is None:
            self._making = asyncio.create_task(self._make_one(), name="shared-copy")
            self._making.add_done_callback(self._finish)
        # whoever leaves must not take the copy away from the others
        return await asyncio.shield(self._making)

    async def _make_one(self) -> T:
        begun, age = self._clock(), self._max_age()
        copy = await self._make()
        took = self._clock() - begun
        rest = min((1 + _REST) * took, _LONGEST_REST) if age else 0.0
        self._fresh_until = begun + max(age, rest)
        return copy

    def _finish(self, task: asyncio.Task[T]) -> None:
        failed = task.cancelled() or task.exception() is not None
        self._made, self._making = None if failed else task, None


class Turnstile:
    """Lets so many callers through at once per period. The others wait for its end, then pass one by one."""

    def __init__(
        self, most: int, seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """most: callers per period. seconds: the length of a period; nobody waits if it is 0."""
        self._most, self._seconds, self._clock = most, seconds, clock
        self._ends = 0.0
        self._passed = 0
        self._turn = asyncio.Lock()

    async def enter(self) -> None:
        """Return when the caller may go on."""
        now = self._clock()
        if now >= self._ends:
            self._ends, self._passed = now + self._seconds(), 0
        self._passed += 1
        if self._passed > self._most:
            await asyncio.sleep(self._ends - now)
            async with self._turn:
                await asyncio.sleep(0)
