"""The limiter of the simulator: a sliding window of tokens in plain Python."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from gateway.budget.pacing import Reading
from gateway.store.commands import BUCKETS

REFUSED = -1
"""In place of a tier: no tier fits."""


class Limiter:
    """Admits requests by the rule of the Lua scripts, but never cuts the cheapest tier.

    Settled tokens belong to the bucket of their settlement. They count for the whole trailing window, and at
    most one bucket longer.
    """

    def __init__(self, seconds: float, cap: float) -> None:
        self.cap, self.settled, self.reserved = cap, 0.0, 0.0
        self.arrivals = self.limited = 0
        self.spent = self.expected = 0.0
        self.peak = 0.0
        self._width = seconds / BUCKETS
        self._buckets: deque[tuple[int, float]] = deque()

    def _expire(self, now: float) -> None:
        first = math.floor(now / self._width) - BUCKETS
        while self._buckets and self._buckets[0][0] < first:
            self.settled -= self._buckets.popleft()[1]

    def reserve(self, now: float, wanted: int, amounts: Sequence[float], *, enforced: bool) -> int:
        """The tier granted: the wanted one, or if enforced a lower one that fits, or REFUSED."""
        self._expire(now)
        self.arrivals += 1
        granted = wanted
        if enforced:
            room = self.cap - self.settled - self.reserved
            while granted >= 0 and amounts[granted] > room:
                granted -= 1
            self.limited += granted != wanted
        if granted < 0:
            return REFUSED
        self.reserved += amounts[granted]
        self.peak = max(self.peak, self.settled + self.reserved)
        return granted

    def settle(self, now: float, reserved: float, used: float, expected: float) -> None:
        """Replace a reservation by the tokens that were used."""
        self._expire(now)
        self.reserved -= reserved
        self.settled += used
        self.spent += used
        self.expected += expected
        self._buckets.append((math.floor(now / self._width), used))
        self.peak = max(self.peak, self.settled + self.reserved)

    def reading(self, now: float) -> Reading:
        """The input of the price controller."""
        self._expire(now)
        return Reading(
            now,
            self.settled,
            self.reserved,
            self.cap,
            self.arrivals,
            self.limited,
            self.spent,
            self.expected,
        )
