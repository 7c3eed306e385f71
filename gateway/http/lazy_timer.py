"""The time until which a connection may wait, without a timer for each request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class LazyTimer:
    """Calls a function when it has passed.

    It changes twice per request, so the timer stays, and looks at the current deadline when it fires.
    """

    __slots__ = ("_action", "_at", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._at: float | None = None
        self._action: Callable[[], object] = _nothing
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        return self._at is not None

    def set(self, seconds: float, action: Callable[[], object]) -> None:
        """Call `action` in so many seconds, unless the deadline is set anew or cleared before."""
        self._at = at = self._loop.time() + seconds
        self._action = action
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._look)

    def clear(self) -> None:
        """Call nothing."""
        self._at = None

    def stop(self) -> None:
        """Call nothing ever again."""
        self._at, self._action = None, _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._at = None
        self._action()


def _nothing() -> None:
    pass
