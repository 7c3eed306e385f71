"""A sliding window in this process alone: what `degrade` spends from while Redis is away. Pure."""

from __future__ import annotations

from collections import deque


class LocalWindow:
    """At most `cap` tokens in any `seconds`; `now` is any monotonic time in seconds."""

    def __init__(self, cap: int, seconds: float) -> None:
        self.cap = cap
        self._seconds = seconds
        self._settled: deque[tuple[float, int]] = deque()
        self._used = 0

    def reserve(self, tokens: int, now: float) -> bool:
        """Set tokens aside, or say that there is no room."""
        while self._settled and self._settled[0][0] <= now - self._seconds:
            self._used -= self._settled.popleft()[1]
        if self._used + tokens > self.cap:
            return False
        self._used += tokens
        return True

    def settle(self, reserved: int, tokens: int, now: float) -> None:
        """Replace what was set aside by what was spent."""
        self._used += tokens - reserved
        if tokens:
            self._settled.append((now, tokens))
