"""The headers of a response, from the backend and from the gateway."""

from __future__ import annotations

import time

from gateway.http.headers import Headers
from gateway.telemetry.record import Record
from gateway.upstream.response import UpstreamResponse


def response_headers(record: Record, response: UpstreamResponse, begun: float) -> Headers:
    """The backend's headers and ours, as the response starts; `begun` is when the backend's was there."""
    record.overhead = (record.overhead or 0.0) + time.perf_counter() - begun
    headers = [
        *response.headers,
        response.backend.name_header,
        (b"x-thinkmeter-overhead-ms", b"%.3f" % (record.overhead * 1000)),
    ]
    if record.reservation:
        headers += record.reservation.headers()
    if record.decision:
        headers += record.decision.headers(budget_sent=record.sends_thinking_budget)
    return headers
