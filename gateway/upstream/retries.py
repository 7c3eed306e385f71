"""Whether a failed request is sent to another replica, and how many may be. No I/O: time is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.errors import BackendOverloaded, GatewayError, NoBackend

_WINDOW = 10.0  # seconds
_LEAST = 3  # further attempts that are always allowed in a window, so that a quiet model has some


@dataclass(slots=True)
class RetryBudget:
    """Allows further attempts for `share` of the requests of the last ten seconds, but for at least three.

    Without it, overloaded replicas get several times the load that overloaded them. Retry budgets are
    described in Google's SRE book, chapter 21, and Envoy has the same share as its default.
    """

    share: float = 0.2
    refused: int = 0
    """Further attempts that were not allowed, since the start."""
    _begun: float = float("-inf")
    """The time at which the current window began. The one before it ended then."""
    _requests: int = 0
    """Requests of the current window."""
    _retries: int = 0
    """Further attempts of the current window."""
    _requests_before: int = 0
    _retries_before: int = 0

    def count_request(self, now: float) -> None:
        """Count a new request."""
        if now - self._begun >= _WINDOW:
            self._turn(now)
        self._requests += 1

    def take(self, now: float) -> bool:
        """Whether a further attempt is allowed; if it is, it is counted."""
        if now - self._begun >= _WINDOW:
            self._turn(now)
        in_sight = 1 - (now - self._begun) / _WINDOW  # share of the window before within the last 10 s
        requests = self._requests_before * in_sight + self._requests
        retries = self._retries_before * in_sight + self._retries
        if retries + 1 > max(_LEAST, self.share * requests):
            self.refused += 1
            return False
        self._retries += 1
        return True

    def _turn(self, now: float) -> None:
        """Begin a new window, as the current one is over."""
        recent = now - self._begun < 2 * _WINDOW
        self._requests_before, self._retries_before = (self._requests, self._retries) if recent else (0, 0)
        self._requests = self._retries = 0
        self._begun = self._begun + _WINDOW if recent else now


def may_move_on(failures: Sequence[GatewayError], *, resend_lost: bool) -> bool:
    """Whether another replica may get a request after these failures, the latest last.

    A request that a replica may have worked on is sent on only with `resend_lost`. Of an overloaded model,
    two replicas at most are asked.
    """
    latest = failures[-1]
    if latest.spent and not resend_lost:
        return False
    overloaded = sum(isinstance(failure, BackendOverloaded) for failure in failures)
    return latest.retryable and overloaded < 2


def costs(failure: GatewayError) -> bool:
    """Whether another attempt after a failure counts against the budget: not if nothing was sent."""
    return not isinstance(failure, NoBackend) or failure.reached
