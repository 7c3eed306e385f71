"""Decides about requests while Redis is away: refuse, let pass, or spend from a local window. No I/O.

Times are arguments: seconds of any monotonic clock.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

from gateway.budget.limits import Limit, span
from gateway.budget.observer import BudgetObserver
from gateway.budget.reservation import Demand, Reservation
from gateway.config.budgets import FailurePolicy
from gateway.errors import BudgetUnavailable, TokensExceeded

_BY_STRICTNESS: tuple[FailurePolicy, ...] = ("open", "degrade", "closed")


class LocalWindow:
    """A sliding window in this process alone: at most `cap` tokens in any `seconds`."""

    def __init__(self, cap: int, seconds: float) -> None:
        self.cap = cap
        self._seconds = seconds
        self._settled: deque[tuple[float, int]] = deque()
        self._used = 0

    def reserve(self, tokens: int, now: float) -> bool:
        """Reserve tokens; False if there is no room for them."""
        while self._settled and self._settled[0][0] <= now - self._seconds:
            self._used -= self._settled.popleft()[1]
        if self._used + tokens > self.cap:
            return False
        self._used += tokens
        return True

    def settle(self, reserved: int, tokens: int, now: float) -> None:
        """Replace reserved tokens by the tokens that were spent."""
        self._used += tokens - reserved
        if tokens:
            self._settled.append((now, tokens))


class Fallback:
    """Decides in place of Redis, by the strictest `when_redis_fails` of a request's budgets.

    `closed` refuses the request. `open` lets it pass. `degrade` grants the cheapest tier, as long as this
    gateway stays below `local_share` of each budget. What passes is settled in Redis once it is back.
    """

    def __init__(self, gateway_id: str, observer: BudgetObserver, local_share: float) -> None:
        self.local_share = local_share
        """Share of a budget that this gateway may spend without Redis, under `degrade`."""
        self._observer = observer
        self._ids = (f"{gateway_id}-local-{number}" for number in itertools.count(1))
        self._windows: dict[str, LocalWindow] = {}

    def window(self, limit: Limit) -> LocalWindow:
        """The local window of a limit. Its cap is set anew, because a reload may have changed it."""
        cap = int(limit.budget.tokens * self.local_share)
        window = self._windows.setdefault(limit.window.key, LocalWindow(cap, limit.budget.window))
        window.cap = cap
        return window

    def reserve(
        self, limits: tuple[Limit, ...], demand: Demand, now: float, *, cause: Exception
    ) -> Reservation:
        """Reserve tokens without Redis. Raises: BudgetUnavailable, TokensExceeded."""
        policy = max((limit.budget.when_redis_fails for limit in limits), key=_BY_STRICTNESS.index)
        self._observer.fell_back(policy)
        if policy == "closed":
            raise BudgetUnavailable(
                "The token budget cannot be checked right now", retry_after=1, detail=str(cause)
            )
        reservation = Reservation(next(self._ids), limits, demand, 0, fallback=policy)
        if policy == "degrade":
            reservation.tier = len(demand.tiers) - 1
            self._reserve_locally(reservation, now)
        return reservation

    def _reserve_locally(self, reservation: Reservation, now: float) -> None:
        taken: list[tuple[LocalWindow, int]] = []
        for limit, amount in zip(reservation.limits, reservation.amounts(), strict=True):
            window = self.window(limit)
            if not window.reserve(amount, now):
                for other, tokens in taken:
                    other.settle(tokens, 0, now)
                self._observer.decided(limit.budget.name, "refused")
                raise TokensExceeded(
                    f"The {limit} is degraded while Redis is away: this gateway may spend no more than "
                    f"{window.cap:,} tokens in {span(limit.budget.window)}",
                    retry_after=1,
                )
            taken.append((window, amount))
        reservation.local = [amount for _, amount in taken]

    def settle(self, reservation: Reservation, spent: Sequence[tuple[int, int]], now: float) -> None:
        """Settle in the local windows. spent: (tokens spent, tokens expected) under each limit."""
        # `local` is empty unless `_reserve_locally` has filled it, so the lengths may differ
        for limit, amount, (tokens, _) in zip(reservation.limits, reservation.local, spent, strict=False):
            self.window(limit).settle(amount, tokens, now)
