"""The replicas of a model, and which of them gets the next request. Pure: time is passed in."""

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
    """One replica at run time: what is known of its health, and how busy we keep it."""

    name: str
    replica: Replica
    breaker: CircuitBreaker
    healthy: bool | None = None
    """None until the first check has ended."""
    failed_checks: int = 0
    context: int | None = None
    """Tokens that prompt and completion may have together, once the replica has said so."""
    in_flight: int = 0
    last_used: float = 0.0

    def usable(self, now: float) -> bool:
        return self.healthy is not False and self.breaker.allows(now)

    def checked(self, *, alive: bool, failures: int) -> None:
        """Take the result of a health check; `failures` in a row make the replica unhealthy.

        The very first check decides alone, so that a replica that was never there gets no request.
        """
        self.failed_checks = 0 if alive else self.failed_checks + 1
        if alive:
            self.healthy = True
        elif self.healthy is None or self.failed_checks >= failures:
            self.healthy = False

    def take(self, now: float) -> None:
        """A request is about to be sent."""
        self.breaker.begin_attempt(now)
        self.in_flight += 1
        self.last_used = now

    def release(self, failure: BaseException, now: float) -> None:
        """A request ended without a reply; only a fault of the replica counts against it."""
        self.in_flight -= 1
        if isinstance(failure, BackendOverloaded) or not isinstance(failure, GatewayError):
            self.breaker.abandon()
        elif isinstance(failure, BackendError):
            self.breaker.record_failure(now)
        else:
            self.breaker.record_success()


@dataclass(eq=False)
class Pool:
    """The replicas of one model."""

    model: str
    served_name: str
    backends: list[Backend]
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: int = 2
    """Further attempts before the first byte."""
    health: Health = field(default_factory=Health)

    @property
    def context(self) -> int | None:
        """The smallest context among the replicas that have stated theirs."""
        return min((backend.context for backend in self.backends if backend.context), default=None)

    def pick(self, now: float, tried: set[Backend], affinity: str | None) -> Backend | None:
        """The replica for the next attempt, or None. Those tried before only when no other is left.

        With an affinity value: the replica of highest rendezvous hash, so that a lost replica moves only its
        own sessions. Else the one with the fewest requests outstanding, the longest unused among equals.
        """
        usable = [backend for backend in self.backends if backend.usable(now)]
        fresh = [backend for backend in usable if backend not in tried] or usable
        if not fresh:
            return None
        if affinity is not None:
            return max(fresh, key=lambda backend: _rendezvous(backend.name, affinity))
        return min(fresh, key=lambda backend: (backend.in_flight, backend.last_used))


def pools_of(settings: Settings, known: Iterable[Backend] = ()) -> dict[str, Pool]:
    """The pool of every model. A replica that is `known` by name and address keeps its health and load."""
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
