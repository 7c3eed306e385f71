"""The times by which replicas must have begun to respond to requests."""

from __future__ import annotations

import asyncio
import math

from msgspec import Struct

from gateway.config.models import Timeouts
from gateway.errors import BackendTimeout
from gateway.upstream.arriving import HttpResponse
from gateway.upstream.pool import Backend
from gateway.upstream.request import UpstreamRequest

_LOOK = 1.0  # seconds after which a replica that may be at work in silence is looked at again
_BETWEEN = 0.02  # seconds between two sweeps, at least


class Deadline(Struct, eq=False):
    """The deadline of one attempt: `timeouts.first_byte` for a stream, `timeouts.total` for the rest.

    While the backend may be at work in silence, a stream has until `timeouts.total` too. All times are those
    of the event loop.
    """

    backend: Backend
    request: UpstreamRequest
    timeouts: Timeouts
    limit: float
    """When the response must have begun."""
    end: float
    """When the request as a whole must end."""
    response: HttpResponse | None = None
    """What must have begun; None until the request is sent."""

    def due(self, now: float) -> float:
        """When to look at it: later than now, unless it is missed."""
        if self.limit > now:
            return self.limit
        return min(now + _LOOK, self.end) if self._may_be_at_work else now

    @property
    def connected_by(self) -> float:
        """When a connection must be open."""
        return self.end if self._may_be_at_work else self.limit

    @property
    def missed(self) -> BackendTimeout:
        """The error for a backend that was too late."""
        name, seconds = "total", self.timeouts.total
        if self.limit < self.end:
            name, seconds = "first_byte", self.timeouts.first_byte
        detail = f"timeouts.{name}, {seconds:g} s"
        return BackendTimeout("The backend did not respond in time", detail=detail)

    @property
    def _may_be_at_work(self) -> bool:
        """Whether the backend may be generating what it does not show yet."""
        return (self.request.late or self.request.holds_back) and self.backend.healthy is not False


class Deadlines:
    """The deadlines of all running attempts, swept by one timer, as nearly all are met.

    The timer is set for the earliest deadline that it has seen. In the ordinary case that attempt is over by
    then, and the timer is set for the earliest that is left. So an attempt costs no timer of its own.
    """

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._set_for = math.inf

    def watch(self, deadline: Deadline, response: HttpResponse) -> None:
        """Fail the response if it has not begun in time."""
        deadline.response = response
        self._running.add(deadline)
        if deadline.limit < self._set_for:
            self._set(deadline.limit)

    def forget(self, deadline: Deadline) -> None:
        """End the watch, if it has begun."""
        self._running.discard(deadline)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer:
            self._timer.cancel()

    def _set(self, when: float) -> None:
        self.close()
        self._timer = asyncio.get_running_loop().call_at(when, self._sweep)
        self._set_for = when

    def _sweep(self) -> None:
        now, earliest = asyncio.get_running_loop().time(), math.inf
        self._timer, self._set_for = None, math.inf
        for deadline in list(self._running):
            due = deadline.due(now)
            if due > now:
                earliest = min(earliest, due)
                continue
            self._running.discard(deadline)
            if deadline.response is not None:
                deadline.response.fail(deadline.missed)
        if self._running:
            self._set(max(earliest, now + _BETWEEN))
