"""Hands the records of finished requests to the metrics, the access log and the console, many at a time.

A lone request must not wait until all is noted about the one before. Of many requests, noting them one after
the other costs less.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.telemetry.record import Record

log = logging.getLogger("thinkmeter")

Sink = Callable[[Record], None]

_MOST = 64
"""Records that wait at most. Noting so many takes about a millisecond."""
_SECONDS = 0.005
"""For which the first one waits at most, while the event loop runs on time."""


class FinishedRecords:
    """The records that no sink has seen yet, in the order in which their requests ended.

    Whoever reads what a sink keeps calls `flush` first.
    """

    def __init__(self) -> None:
        self.at_once: list[Sink] = []
        """Sinks that get each record when its request ends."""
        self.sinks: list[Sink] = []
        """Those that get it soon."""
        self._waiting: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: Record, status: int, error: GatewayError | None, peer: str) -> None:
        """Take the record of a request that ends now, with the status, the error and the client's address."""
        record.status, record.peer, record.duration = status, peer, record.elapsed()
        if error is not None:
            record.error = error
        if record.error is not None and record.error.level >= logging.ERROR:
            log.error("request %s: %s (%s)", record.request_id, record.error.message, record.error.detail)
        for sink in self.at_once:
            sink(record)
        waiting = self._waiting
        waiting.append(record)
        if len(waiting) >= _MOST:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand over all records so far. What one sink fails at, the others still get."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for sink in self.sinks if waiting else ():
            for record in waiting:
                try:
                    sink(record)
                except Exception as error:  # noqa: BLE001 - logged without its text, as by `Gateway.answer`
                    trace = "".join(traceback.format_tb(error.__traceback__))
                    log.error("noting request %s: %s\n%s", record.request_id, type(error).__name__, trace)  # noqa: TRY400
