"""The record of one request. Access log, metrics, traces and console are made from it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from msgspec import Struct, field

from gateway.budget.reservation import Reservation
from gateway.errors import GatewayError
from gateway.http.headers import Headers
from gateway.openai_api.usage import TokenUsage
from gateway.routing.decision import Decision


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """What an admin can change in a window, in tokens."""

    limit: int
    spent: int


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """What an admin did to a budget."""

    action: str
    """`set_limit`, `restore_limit`, `top_up` or `reset`."""
    budget: str
    holder: str
    tokens: int | None = None
    """The new limit, or the tokens added."""
    before: BudgetFigures | None = None
    after: BudgetFigures | None = None
    """None if the change failed, or may have."""


class AskedPrompt(Struct, gc=False):
    """What the store of evidence keeps of a request, beside its decision."""

    prompt: str
    opening: tuple[str, ...]
    """The texts of a chat up to the first of the user."""
    team: str | None
    unit: str | None
    """Who or what stays in one arm; None without a hold-out."""


class Record(Struct, eq=False):
    """What happened to one request, filled in while it is served. Times are in seconds."""

    request_id: str
    route: str = "other"
    """The pattern of the route, not the path of the request, because it labels metrics."""
    started_at: float = field(default_factory=time.time)
    """Unix time."""
    clock: float = field(default_factory=time.perf_counter)
    """The performance counter at the start. The durations below count from here."""
    admitted: float = 0.0
    """The performance counter when the request had been read. `overhead` counts from here."""
    status: int = 0
    peer: str = ""
    """The client's address; empty for a socket without addresses."""
    key: str | None = None
    """The name of the API key; `admin` or `console` on their routes. None without a key, or a wrong one."""
    change: BudgetChange | None = None
    model: str | None = None
    """Set only when the model is known to exist, because it labels metrics."""
    stream: bool = False
    sends_thinking_budget: bool = False
    """The request to the backend has a thinking budget, so the response shows whether it was honoured."""
    choices: int = 1
    """Answers that the request asks for (`n`). Each may use the whole thinking budget."""
    decision: Decision | None = None
    decision_seconds: float | None = None
    reservation: Reservation | None = None
    """Tokens reserved under the budgets of the request."""
    backend: str | None = None
    attempts: int = 0
    answered: bool = False
    """A backend began to respond, so it has spent tokens, even if its response was lost."""
    silent: bool = False
    """What passed of a stream says nothing about what the backend has spent."""
    silence: float = 0.0
    """Seconds between the last block of a stream and its early end."""
    rate: float = 0.0
    """Completion tokens of a stream that passed in a second."""
    overhead: float | None = None
    """The gateway's own share of the time to the first byte of the response."""
    first_byte: float | None = None
    duration: float = 0.0
    counts: bool = True
    """The endpoint generates something, so a response without token usage is worth a metric."""
    usage: TokenUsage = field(default_factory=TokenUsage)
    asked: AskedPrompt | None = None
    """Set while the request is served, if evidence is kept. The store takes it."""
    error: GatewayError | None = None
    span: object = None
    """The open trace span; None without tracing."""
    trace_headers: Headers = field(default_factory=list)
    """Trace context for the backend, in place of the client's; empty without tracing."""
    cancelled: bool = False
    """The backend was told to stop before its response was complete."""
    shadow: bool = False
    """The request was drawn to be asked again at another rung."""
    stopped: bool = False
    """So it was because the answer had reached a stop string of the client's."""

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.clock
