"""The replicas of a model, and the choice of a replica for each attempt. No I/O: time is passed in."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from gateway.config.models import Health, Model, Replica, Timeouts
from gateway.config.settings import Settings
from gateway.errors import (
    BackendDisconnected,
    BackendError,
    BackendOverloaded,
    GatewayError,
    NoBackend,
)
from gateway.openai_api.amendments import FieldPath, any_at
from gateway.openai_api.usage import TokenUsage
from gateway.upstream.causes import Cause
from gateway.upstream.ejection import ReplicaBreaker
from gateway.upstream.origin import Origin, authorization, head_start, header_lines, parse_origin
from gateway.upstream.refused_fields import RefusedFields
from gateway.upstream.retries import RetryBudget

log = logging.getLogger("thinkmeter.upstream")


@dataclass(eq=False)
class Backend:
    """One replica at run time: its health and its load."""

    name: str
    replica: Replica
    breaker: ReplicaBreaker = field(default_factory=ReplicaBreaker)
    healthy: bool | None = None
    """None until the first health check has ended."""
    failed_checks: int = 0
    """Health checks that failed in a row."""
    passed_at: float = float("-inf")
    """Monotonic time at which the latest health check that passed began."""
    cause: Cause | None = None
    """What the last health check found wrong. A healthy replica has one if it refuses to name its models."""
    context: int | None = None
    """Most tokens that prompt and completion may have together; None until the replica has stated it."""
    in_flight: int = 0
    """Requests that this gateway has at the replica."""
    last_used: float = 0.0
    """Monotonic time at which the latest request was sent."""
    counts_from: float = float("-inf")
    """Monotonic time from which the replica may be asked how many tokens a prompt has."""
    refused: RefusedFields = field(default_factory=RefusedFields)
    """Fields added by the gateway that the replica does not take."""
    lost_mark: str | None = None
    """The mark of a thought that the replica sent in an answer, as its reasoning parser is missing."""
    lost_at: float | None = None
    """Time at which the replica first reported that its engine is gone; None since it has served again."""
    _head_starts: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def origin(self) -> Origin:
        """Its address."""
        return parse_origin(self.replica.base, self.replica.tls)

    @cached_property
    def head_lines(self) -> bytes:
        """The headers of every request to it, besides those of its address."""
        return header_lines([(b"Content-Type", b"application/json"), *authorization(self.replica)])

    def head_start(self, path: str) -> bytes:
        """The request line of a POST to it, and the headers that all have. They are made once per path."""
        start = self._head_starts.get(path)
        if start is None:
            start = self._head_starts[path] = head_start(b"POST", self.origin, path) + self.head_lines
        return start

    @cached_property
    def name_header(self) -> tuple[bytes, bytes]:
        """The header that tells clients its name."""
        return b"x-thinkmeter-backend", self.name.encode()

    def checked(self, *, alive: bool, failures: int, begun: float = 0.0) -> None:
        """Record a health check that began at `begun`; `failures` failed ones in a row make it unhealthy.

        The very first check decides alone, so that a replica that was never reachable gets no request.
        """
        if alive and self.failed_checks:
            self.refused.forget()  # it may have been restarted with other options
        self.failed_checks = 0 if alive else self.failed_checks + 1
        if alive:
            if self.healthy is False:
                self.breaker.reset()  # what failed was the replica before its restart
            self.healthy, self.passed_at = True, begun
        elif self.healthy is None or self.failed_checks >= failures:
            self.healthy = False

    def start_request(self, now: float) -> None:
        """Count a request that is about to be sent."""
        self.breaker.begin_attempt(now)
        self.in_flight += 1
        self.last_used = now

    def fail_request(self, failure: BaseException, client: str, cause: bytes, now: float) -> None:
        """End a request that got no usable response. Only what may be the replica's fault counts against it.

        client: who sent the request. cause: the request's fingerprint.
        """
        self.in_flight -= 1
        stale = isinstance(failure, BackendDisconnected) and failure.stale
        if stale or isinstance(failure, BackendOverloaded) or not isinstance(failure, GatewayError):
            self.breaker.abandon()  # a 429, a cancelled request or an idle connection proves nothing
        elif isinstance(failure, NoBackend) and not failure.reached:
            self.breaker.record_unreachable(now)
        elif isinstance(failure, BackendError):
            self.count_failure(client, cause, now)
        else:
            self.breaker.record_success(client, now)  # it refused the request, so it works

    def note_thought(self, usage: TokenUsage) -> None:
        """Note whether its reasoning parser works, as a response shows."""
        if usage.lost_mark and not self.lost_mark:
            log.warning("backend %s sends thoughts in its answers (%s)", self.name, usage.lost_mark)
        if usage.lost_mark or usage.reasoning:
            self.lost_mark = usage.lost_mark

    def interpret(self, failure: GatewayError, sent: float, now: float) -> GatewayError:
        """What a failure that the replica itself reported means for the request, which was sent at `sent`.

        The server in front of a dead engine tells every request that the engine is gone. Those that were
        sent before it was known may have killed the engine. Later ones had no part in that, so another
        replica may serve them, until a health check says that the engine is back.
        """
        if not isinstance(failure, BackendDisconnected):
            return failure
        if self.lost_at is None or self.passed_at > self.lost_at:
            self.lost_at = now
        elif sent > self.lost_at:
            return NoBackend("The backend is not available right now", retry_after=1, detail=failure.detail)
        return failure

    def count_failure(self, client: str, cause: bytes, now: float) -> None:
        """Count a failed request of a client, which may be its own fault."""
        self.breaker.record_failure(client, cause, now, suspect=self.failed_checks > 0)


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
    resend_lost: bool = False
    """Whether a request that a replica may have worked on is sent to another one."""
    retry_budget: RetryBudget = field(default_factory=RetryBudget)

    @property
    def context(self) -> int | None:
        """The smallest context length that any replica has stated, in tokens."""
        least = None
        for backend in self.backends:
            stated = backend.context
            if stated and (least is None or stated < least):
                least = stated
        return least

    def refuses(self, places: Collection[FieldPath], now: float) -> bool:
        """Whether every replica that could be picked refuses a field at one of these places."""
        for backend in self.backends:
            if backend.refused:
                break
        else:
            return False  # the usual case
        usable = self._usable(now)
        return bool(usable) and all(any_at(backend.refused.known(now), places) for backend in usable)

    def pick(self, now: float, tried: set[Backend], affinity: str | None) -> Backend | None:
        """Choose a replica that is not in `tried` for the next attempt; None if there is no other.

        Replicas that fail their health checks get no requests. Breakers may leave out half of the others, so
        never the last one. If more are open, those that opened first get requests again.

        Without an affinity value the least busy replica wins; of equally busy ones, the one unused for
        longest.

        With an affinity value (such as a session id), the highest rendezvous hash wins: every replica gets a
        hash of its name and the value. If a replica is lost, each of its sessions moves to the replica with
        the next highest hash, and all other sessions stay where they are.
        """
        usable = self.backends
        for backend in usable:
            if backend.healthy is False or backend.breaker.opened_at is not None:
                usable = self._usable(now)
                break
        fresh = [backend for backend in usable if backend not in tried] if tried else usable
        if len(fresh) < 2:
            return fresh[0] if fresh else None
        if affinity is not None:
            return max(fresh, key=lambda backend: _rendezvous(backend.name, affinity))
        return min(fresh, key=lambda backend: (backend.in_flight, backend.last_used))

    def _usable(self, now: float) -> list[Backend]:
        able = [backend for backend in self.backends if backend.healthy is not False]
        left_out = [b for b in able if b.breaker.opened_at is not None and not b.breaker.allows(now)]
        if not left_out:
            return able
        usable = [backend for backend in able if backend not in left_out]
        excess = len(left_out) - len(able) // 2
        if excess > 0:
            left_out.sort(key=lambda backend: backend.breaker.opened_at or 0.0)
            usable += left_out[:excess]
        return usable


def pools_of(settings: Settings, known: Iterable[tuple[Pool, Backend]] = ()) -> dict[str, Pool]:
    """One pool per model. A replica in `known` keeps its health and load.

    It must have the same model, name and settings. A server of two models is a replica of each.
    """
    kept = {(pool.model, backend.name, backend.replica): backend for pool, backend in known}
    limits = settings.breaker

    def backends(called: str, model: Model) -> Iterator[Backend]:
        for name, replica in zip(model.replica_names(called), model.replicas, strict=True):
            backend = kept.get((called, name, replica)) or Backend(name, replica)
            backend.breaker.limit, backend.breaker.open_seconds = limits.failures, limits.open_seconds
            yield backend

    return {
        name: Pool(
            name,
            model.served_name or name,
            list(backends(name, model)),
            settings.timeouts,
            settings.retries,
            settings.health,
            settings.failover.resend_lost,
            RetryBudget(settings.failover.retry_share),
        )
        for name, model in settings.models.items()
    }


def _rendezvous(backend: str, value: str) -> bytes:
    return hashlib.blake2b(f"{backend}\0{value}".encode(), digest_size=8).digest()
