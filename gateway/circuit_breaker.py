"""The circuit breaker of one replica. Pure: time is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class CircuitBreaker:
    """Closed until `limit` requests fail in a row; then open; after `open_seconds` half open: one request
    may try, and its outcome closes or re-opens the breaker. `now` is any monotonic time in seconds."""

    limit: int = 5
    open_seconds: float = 10
    failures: int = 0
    opened_at: float | None = None
    trying: bool = False

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        if self.opened_at is None:
            return "closed"
        return "open" if now - self.opened_at < self.open_seconds else "half_open"

    def allows(self, now: float) -> bool:
        """Whether a request may go to this replica."""
        state = self.state(now)
        return state == "closed" or (state == "half_open" and not self.trying)

    def begin_attempt(self, now: float) -> None:
        """A request is sent."""
        if self.state(now) == "half_open":
            self.trying = True

    def response_started(self) -> None:
        """The replica is there, but only the answer's good end makes up for past failures."""
        self.opened_at, self.trying = None, False

    def record_success(self) -> None:
        """The replica answered."""
        self.failures, self.opened_at, self.trying = 0, None, False

    def record_failure(self, now: float) -> None:
        """The replica did not answer, or answered that it cannot."""
        self.failures += 1
        if self.failures >= self.limit or self.opened_at is not None:
            self.opened_at = now
        self.trying = False

    def abandon(self) -> None:
        """The request ended without saying anything about the replica: its client went away."""
        self.trying = False
