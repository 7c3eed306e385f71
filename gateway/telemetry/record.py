"""What happened to one request, filled in as it goes; logs, metrics and traces are made from it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from gateway.budget.reservation import Reservation
from gateway.errors import GatewayError
from gateway.http.headers import Headers
from gateway.openai_api.usage import TokenUsage
from gateway.routing.decision import Decision


@dataclass(slots=True)
class Record:
    """One request from its first byte to its last; times in seconds."""

    request_id: str
    route: str = "other"
    """The route's pattern, never the path itself: it labels metrics."""
    started_at: float = field(default_factory=time.time)
    clock: float = field(default_factory=time.perf_counter)
    """Reading of the performance counter at the start; the durations below count from here."""
    admitted: float = 0.0
    """Reading of the performance counter when the request had been read; our overhead counts from here."""
    status: int = 0
    key: str | None = None
    model: str | None = None
    """Set once the model is known to exist, so that it may label a metric."""
    stream: bool = False
    sends_thinking_budget: bool = False
    """The backend was told a thinking budget, so whether it held can be judged."""
    choices: int = 1
    """Answers asked for in one; each has the whole thinking budget."""
    decision: Decision | None = None
    decision_seconds: float | None = None
    reservation: Reservation | None = None
    """Tokens set aside by the budgets of the request."""
    backend: str | None = None
    attempts: int = 0
    answered: bool = False
    """A backend began to answer, so it has spent tokens, whatever became of the answer."""
    unseen: int = 0
    """Reasoning tokens that the backend may spend without sending them, as the client asked."""
    overhead: float | None = None
    """Our own share of the time to the first byte of the answer."""
    first_byte: float | None = None
    duration: float = 0.0
    usage: TokenUsage = field(default_factory=TokenUsage)
    error: GatewayError | None = None
    span: object = None
    """The open trace span, where tracing is on."""
    trace_headers: Headers = field(default_factory=list)
    """Trace context for the backend, where tracing is on; replaces the client's."""
    cancelled: bool = False
    """The backend was told to stop before its answer was complete."""

    def elapsed(self) -> float:
        return time.perf_counter() - self.clock
