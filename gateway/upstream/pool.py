"""The replicas of a model, and the choice of a replica for each attempt. No I/O: time is passed in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gateway.circuit_breaker import CircuitBreaker
from gateway.config.models import Health, Replica, Timeouts
from gateway.config.settings import Settings
from gateway.errors import BackendError, BackendOverloaded, GatewayError


@dataclass(eq=False)
class Backend:
    """One replica at run time: its health and its load."""

    name: str
    replica: Replica
    breaker: CircuitBreaker
    healthy: bool | None = None
    """None until the first health check has ended."""
    failed_checks: int = 0
    """Health checks that failed in a row."""
    context: int | None = None
    """Most tokens that prompt and completion may have together; None until the replica has stated it."""
    in_flight: int = 0
    """Requests that this gateway has at the replica."""
    last_used: float = 0.0
    """Monotonic time at which the latest request was sent."""

    def usable(self, now: float) -> bool:
        """Whether this replica may get a request now."""
        return self.healthy is not False and self.breaker.allows(now)

    def checked(self, *, alive: bool, failures: int) -> None:
        """Record the result of a health check; `failures` failed checks in a row make the replica unhealthy.

        The very first check decides alone, so that a replica that was never reachable gets no request.
        """
        self.failed_checks = 0 if alive else self.failed_checks + 1
        if alive:
            self.healthy = True
        elif self.healthy is None or self.failed_checks >= failures:
            self.healthy = False

    def start_request(self, now: float) -> None:
        """Count a request that is about to be sent."""
        self.breaker.begin_attempt(now)
        self.in_flight += 1
        self.last_used = now

    def fail_request(self, failure: BaseException, now: float) -> None:
        """End a request that got no usable response. Only a fault of the replica counts against it."""
        self.in_flight -= 1
        if isinstance(failure, BackendOverloaded) or not isinstance(failure, GatewayError):
            self.breaker.abandon()  # a 429 or a cancelled request says nothing about the replica
        elif isinstance(failure, BackendError):
            self.breaker.record_failure(now)
        else:
            self.breaker.record_success()  # it refused the request, so it works


@dataclass(eq=False)
class Pool:
    """The replicas of one model."""

    model: str
    served_name: str
    """The model's name at its replicas."""
    backends: list[Backend]
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int = 2
    """Further attempts after the first one failed."""
    health: Health = field(default_factory=Health)

    @property
    def context(self) -> int | None:
        """The smallest context length that any replica has stated, in tokens."""
        return min((backend.context for backend in self.backends if backend.context), default=None)

    def pick(self, now: float, tried: set[Backend], affinity: str | None) -> Backend | None:
        """Choose a replica for the next attempt; None if no replica is usable.

        A replica in `tried` is chosen only if no other is left. Without an affinity value the least busy
        replica wins; of equally busy ones, the one unused for longest.

        With an affinity value (such as a session id), the highest rendezvous hash wins: every replica gets a
        hash of its name and the value. If a replica is lost, each of its sessions moves to the replica with
        the next highest hash, and all other sessions stay where they are.
        """
        usable = [backend for backend in self.backends if backend.usable(now)]
        fresh = [backend for backend in usable if backend not in tried] or usable
        if not fresh:
            return None
        if affinity is not None:
            return max(fresh, key=lambda backend: _rendezvous(backend.name, affinity))
        return min(fresh, key=lambda backend: (backend.in_flight, backend.last_used))


def pools_of(settings: Settings, known: Iterable[Backend] = ()) -> dict[str, Pool]:
    """One pool per model. A replica in `known` with the same name and settings keeps its health and load."""
    kept = {(backend.name, backend.replica): backend for backend in known}
    limits = settings.breaker

    def backends(model: str, replicas: Iterable[Replica]) -> Iterator[Backend]:
        for position, replica in enumerate(replicas):
            name = replica.name or f"{model}-{position}"
            backend = kept.get((name, replica)) or Backend(name, replica, CircuitBreaker())
            backend.breaker.limit, backend.breaker.open_seconds = limits.failures, limits.open_seconds
            yield backend

    return {
        name: Pool(
            name,
            model.served_name or name,
            list(backends(name, model.replicas)),
            settings.timeouts,
            settings.retries,
            settings.health,
        )
        for name, model in settings.models.items()
    }


def _rendezvous(backend: str, value: str) -> bytes:
    return hashlib.blake2b(f"{backend}\0{value}".encode(), digest_size=8).digest()
