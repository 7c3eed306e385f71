"""The time by which a replica must have begun to respond to a request."""

from __future__ import annotations

import asyncio

from gateway.config.models import Timeouts
from gateway.errors import BackendTimeout
from gateway.upstream.http1 import HttpResponse
from gateway.upstream.pool import Backend
from gateway.upstream.request import UpstreamRequest

_LOOK = 1.0  # seconds


class Deadline:
    """The deadline of one attempt: `timeouts.first_byte` for a stream, `timeouts.total` for the rest.

    While the backend may be at work in silence, a stream has until `timeouts.total` too.
    """

    __slots__ = ("_backend", "_end", "_limit", "_loop", "_request", "_response", "_timeouts", "_timer")

    def __init__(self, backend: Backend, request: UpstreamRequest, timeouts: Timeouts, end: float) -> None:
        """end: the time of the event loop at which the request as a whole must end."""
        self._loop = loop = asyncio.get_running_loop()
        self._backend, self._request, self._timeouts = backend, request, timeouts
        # Responses other than streams begin only when the answer is complete.
        self._limit = min(loop.time() + timeouts.first_byte, end) if request.stream else end
        self._end = end
        self._response: HttpResponse | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connected_by(self) -> float:
        """The time of the event loop by which a connection must be open."""
        return self._end if self._request.may_be_silent(self._backend) else self._limit

    @property
    def missed(self) -> BackendTimeout:
        """The error for a backend that was too late."""
        name, seconds = "total", self._timeouts.total
        if self._limit < self._end:
            name, seconds = "first_byte", self._timeouts.first_byte
        detail = f"timeouts.{name}, {seconds:g} s"
        return BackendTimeout("The backend did not respond in time", detail=detail)

    def watch(self, response: HttpResponse) -> None:
        """Fail the response if it has not begun in time. One timer does that, and costs no task."""
        self._response = response
        self._timer = self._loop.call_at(self._limit, self._look)

    def cancel(self) -> None:
        """End the watch."""
        self._response = None
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if self._response is None:
            return
        now = self._loop.time()
        if now < self._end and self._request.may_be_silent(self._backend):
            self._timer = self._loop.call_at(min(now + _LOOK, self._end), self._look)
        else:
            self._response.fail(self.missed)
