"""A circuit breaker: stops calls to a server that keeps failing. No I/O: time is passed in.

Replicas have their own (`gateway.upstream.ejection`), because their clients may cause failures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class CircuitBreaker:
    """Guards one server of the gateway's own: Redis, or an embeddings server.

    The breaker is closed until `limit` requests fail in a row. Then it is open and allows no requests. After
    `open_seconds` it is half open: it allows one trial, whose outcome closes or re-opens it. `now` is any
    monotonic time in seconds.
    """

    limit: int = 5
    open_seconds: float = 10
    failures: int = 0
    """Failures in a row."""
    opened_at: float | None = None
    """None while the breaker is closed."""
    trying: bool = False
    """Whether the one trial of the half-open state is under way."""

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        if self.opened_at is None:
            return "closed"
        return "open" if now - self.opened_at < self.open_seconds else "half_open"

    def allows(self, now: float) -> bool:
        """Whether a request may be sent."""
        state = self.state(now)
        return state == "closed" or (state == "half_open" and not self.trying)

    def begin_attempt(self, now: float) -> None:
        """A request is about to be sent."""
        if self.state(now) == "half_open":
            self.trying = True

    def record_success(self) -> None:
        """The request succeeded, or was rightly refused."""
        self.failures, self.opened_at, self.trying = 0, None, False

    def record_failure(self, now: float) -> None:
        """The server did not respond, or responded that it cannot serve the request."""
        self.failures += 1
        if self.failures >= self.limit or self.opened_at is not None:
            self.opened_at = now
        self.trying = False

    def abandon(self) -> None:
        """The request ended without saying anything about the server, for example because its client left."""
        self.trying = False
