"""Remembers requests that were lost at a replica, which they may have killed. No I/O: time is passed in.

Clients send a failed request again. If it killed its replica, the next attempt would kill the next one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import BackendDisconnected, BackendError, BackendTimeout, NoBackend, RequestQuarantined
from gateway.upstream.pool import Backend, Pool

_SECONDS = 60.0
_MOST = 1_024  # requests that are remembered
_HASHED = 1 << 18  # bytes
_SAME_MOMENT = 1.0  # seconds; requests lost at one replica within this time were lost together


@dataclass(slots=True)
class Loss:
    """A request that was sent to a replica and got no complete response."""

    replica: str
    at: float
    """Time of the latest loss."""
    count: int = 1
    """How many attempts were lost."""
    sent_again: bool = False
    """Whether the request was admitted after the loss."""


class _Identified(Protocol):
    @property
    def fingerprint(self) -> bytes: ...


class Quarantine:
    """The requests that were lost within the last minute, by the fingerprint of their body."""

    def __init__(self) -> None:
        self._losses: dict[bytes, Loss] = {}
        """The oldest loss comes first."""
        self._suspects: dict[bytes, Loss] = {}
        """Requests that their replica has failed at, and may die of. The oldest comes first."""

    def __bool__(self) -> bool:
        return bool(self._losses or self._suspects)

    def note(
        self, pool: Pool, request: _Identified, backend: Backend, failure: BaseException, now: float
    ) -> None:
        """Remember the request if the replica had it whole and did not respond to it, or failed at it.

        So too if the replica had failed at it and now accepts no connection.
        """
        if pool.resend_lost:
            return
        if isinstance(failure, BackendError) and failure.crashed:
            _remember(self._suspects, request.fingerprint, Loss(backend.name, now))
            return
        suspected = self._suspects and self._suspects.get(request.fingerprint)
        died = suspected and isinstance(failure, NoBackend) and not failure.reached
        if not died and not isinstance(failure, BackendDisconnected | BackendTimeout):
            return
        self._suspects.pop(request.fingerprint, None)
        if isinstance(failure, BackendDisconnected) and failure.stale:
            return
        self._forget(now)
        before = self._losses.pop(request.fingerprint, None)
        if before is None:
            count = 1
        elif not before.sent_again and before.replica == backend.name and now - before.at <= _SAME_MOMENT:
            count = before.count  # several copies of a request that one crash ends are one loss
        else:
            count = before.count + 1
        _remember(self._losses, request.fingerprint, Loss(backend.name, now, count))

    def served(self, request: _Identified) -> None:
        """Forget a request, because a replica has responded to it."""
        self._losses.pop(request.fingerprint, None)
        self._suspects.pop(request.fingerprint, None)

    def admit(self, pool: Pool, request: _Identified, now: float) -> Backend | None:
        """The only replica that may get a request, which lost it before; None if any may.

        A replica that has passed a health check since it lost the request was not killed by it, so it may get
        the request once more. No other replica is put at risk. A lone replica need not pass a check, because
        clients have no other. But if the replica lost other requests at the same moment, any of them may be
        the cause, and each may be sent anywhere once more. A request that was lost twice is not sent at all.

        A replica that failed at the request has it again first, until it has passed a health check since.

        Raises: RequestQuarantined.
        """
        self._forget(now)
        loss = self._losses.get(request.fingerprint)
        if loss is None:
            return self._suspected(pool, request.fingerprint)
        left = loss.at + _SECONDS - now
        if loss.count == 1:
            survivor = _survivor(pool, loss)
            shared = self._shared(loss)
            if survivor or shared:
                loss.sent_again = True
                return None if shared else survivor
            left = min(left, pool.health.interval)
        raise RequestQuarantined(
            "A backend stopped responding when it got the same request a moment ago. As the request may be "
            "the cause, no other backend gets it",
            retry_after=left,
        )

    def _suspected(self, pool: Pool, fingerprint: bytes) -> Backend | None:
        """The replica that failed at the request, if it may have died of it since."""
        suspect = self._suspects.get(fingerprint)
        if suspect is None:
            return None
        for backend in pool.backends:
            if backend.name == suspect.replica and backend.passed_at <= suspect.at:
                return backend
        del self._suspects[fingerprint]
        return None

    def _shared(self, loss: Loss) -> bool:
        return any(
            other.replica == loss.replica and abs(other.at - loss.at) <= _SAME_MOMENT
            for other in self._losses.values()
            if other is not loss
        )

    def _forget(self, now: float) -> None:
        for remembered in (self._losses, self._suspects):
            while remembered:
                oldest = next(iter(remembered))
                if remembered[oldest].at > now - _SECONDS:
                    break
                del remembered[oldest]


def _remember(losses: dict[bytes, Loss], fingerprint: bytes, loss: Loss) -> None:
    """Keep a loss as the latest one, and forget the oldest if there are too many."""
    losses.pop(fingerprint, None)
    losses[fingerprint] = loss
    if len(losses) > _MOST:
        del losses[next(iter(losses))]


def _survivor(pool: Pool, loss: Loss) -> Backend | None:
    """The replica that lost the request, if it has proved since that it lives."""
    lone = len(pool.backends) == 1
    for backend in pool.backends:
        alive = backend.healthy and (lone or backend.passed_at > loss.at)
        if backend.name == loss.replica and alive:
            return backend
    return None


def fingerprint_of(path: str, body: bytes) -> bytes:
    """Identifies a request by its path and body; of a long body, by its length, beginning and end.

    Hashing 32 MB takes 30 ms, during which nothing else is served.
    """
    found = hashlib.blake2b(f"{path} {len(body)} ".encode(), digest_size=16)
    if len(body) <= 2 * _HASHED:
        found.update(body)
    else:
        whole = memoryview(body)
        found.update(whole[:_HASHED])
        found.update(whole[-_HASHED:])
    return found.digest()
