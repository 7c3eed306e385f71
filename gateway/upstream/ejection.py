"""Leaves out a replica that keeps failing requests of several clients. No I/O: time is passed in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

_WINDOW = 30.0  # seconds; what a client met before that is no evidence
_CLIENTS = 256  # most clients that are remembered; the one heard of longest ago is forgotten first


@dataclass(slots=True)
class _Run:
    """What one client met at the replica since its last success there."""

    at: float
    """Time of the latest outcome."""
    since: float = 0.0
    """Time of the first failure in `causes`."""
    causes: set[bytes] = field(default_factory=set)
    """Fingerprints of the requests that failed since the last success. The same request counts once."""


@dataclass(slots=True)
class ReplicaBreaker:
    """Decides whether a replica is at fault for the failures of requests, and then allows it no requests.

    A failure may be the request's own fault, so one client alone opens nothing while health checks pass. The
    breaker opens when `limit` different requests of at least two clients failed, and no more other clients
    were served meanwhile. No client counts for more than half of the limit. If the last health check failed
    too, one client is enough. `limit` connections in a row that could not be opened are always enough, as no
    request had a part in them.

    After `open_seconds` the breaker is half open: it allows one trial, whose outcome closes or re-opens it.
    `now` is any monotonic time in seconds.
    """

    limit: int = 5
    open_seconds: float = 10
    opened_at: float | None = None
    """None while the breaker is closed."""
    trying: bool = False
    """Whether the one trial of the half-open state is under way."""
    openings: int = 0
    """How often the breaker opened, trials that re-opened it not counted."""
    unreachable: int = 0
    """Connections in a row that could not be opened."""
    _runs: dict[str, _Run] = field(default_factory=dict)
    """By client; the client heard of longest ago comes first."""

    def state(self, now: float) -> Literal["closed", "open", "half_open"]:
        if self.opened_at is None:
            return "closed"
        return "open" if now - self.opened_at < self.open_seconds else "half_open"

    def allows(self, now: float) -> bool:
        """Whether the replica may get a request."""
        return self.opened_at is None or (self.state(now) == "half_open" and not self.trying)

    def begin_attempt(self, now: float) -> None:
        """A request is about to be sent."""
        if self.opened_at is not None and self.state(now) == "half_open":
            self.trying = True

    def response_started(self) -> None:
        """A response began: close the breaker, but keep the failures until the response is complete.

        Otherwise a replica whose streams all begin and then break would never reach the limit.
        """
        self.opened_at, self.trying, self.unreachable = None, False, 0

    def record_success(self, client: str, now: float) -> None:
        """The client was served, or rightly refused."""
        self.opened_at, self.trying, self.unreachable = None, False, 0
        run = self._run(client, now)
        if run.causes:
            run.causes.clear()

    def record_failure(self, client: str, cause: bytes, now: float, *, suspect: bool) -> None:
        """A request of the client failed; `cause` is the request's fingerprint.

        suspect: the last health check failed too.
        """
        self.unreachable = 0
        run = self._run(client, now)
        if not run.causes:
            run.since = now
        if len(run.causes) < self.limit:
            run.causes.add(cause)
        self._judge(now, failing=self._failing(now, suspect=suspect))

    def record_unreachable(self, now: float) -> None:
        """No connection could be opened."""
        self.unreachable += 1
        self._judge(now, failing=self.unreachable >= self.limit)

    def abandon(self) -> None:
        """The request ended without saying anything about the replica, such as when its client left."""
        self.trying = False

    def reset(self) -> None:
        """Forget everything: the replica has been restarted."""
        self.response_started()
        self._runs.clear()

    def _judge(self, now: float, *, failing: bool) -> None:
        if failing or self.opened_at is not None:  # a trial that failed re-opens it
            self.openings += self.opened_at is None
            self.opened_at = now
        self.trying = False

    def _run(self, client: str, now: float) -> _Run:
        run = self._runs.pop(client, None) or _Run(now)
        run.at = now
        self._runs[client] = run
        if len(self._runs) > _CLIENTS:
            del self._runs[next(iter(self._runs))]
        return run

    def _failing(self, now: float, *, suspect: bool) -> bool:
        recent = [run for run in self._runs.values() if run.at > now - _WINDOW]
        failing = [run for run in recent if run.causes]
        begun = min((run.since for run in failing), default=now)
        served = sum(1 for run in recent if not run.causes and run.at >= begun)
        most = self.limit if suspect else (self.limit + 1) // 2
        failures = sum(min(len(run.causes), most) for run in failing)
        enough = len(failing) >= (1 if suspect else 2)
        return enough and failures >= self.limit and len(failing) >= served
