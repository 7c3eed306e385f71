"""Whether a model's replicas have room for experiments. No I/O: time is passed in.

What a pool can carry is not known. What it has carried is: the most requests of clients that were in flight
at once within the last one to two hours. Shadow requests run while there are at most half as many, or few.
"""

from __future__ import annotations

from gateway.upstream.pool import Pool

CLIENT_SHARE = 0.5
"""Of the most requests that were in flight."""
FEW_CLIENTS = 4
"""Requests of clients per healthy replica that leave room, whatever the pool has shown."""
_HOUR = 3600.0


class PoolLoad:
    """The load that clients put on one pool, through this gateway."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._before = self._peak = 0
        """The most requests in flight in the hour before, and in this one."""

    def note(self, pool: Pool, own: int, now: float) -> int:
        """Note how many requests clients have in flight, which is returned. Costs little, for every request.

        own: shadow requests among those in flight. now: monotonic seconds.
        """
        clients = -own
        for backend in pool.backends:
            clients += backend.in_flight
        if now - self._since > _HOUR:
            self._before = self._peak if now - self._since < 2 * _HOUR else 0
            self._since, self._peak = now, 0
        self._peak = max(self._peak, clients)
        return clients

    def busy(self, pool: Pool, own: int, now: float) -> bool:
        """Note the load, and say whether it leaves no room."""
        clients = self.note(pool, own, now)
        healthy = [backend for backend in pool.backends if backend.healthy is not False]
        if len(healthy) < len(pool.backends) or any(b.breaker.opened_at is not None for b in healthy):
            return True
        return clients > max(FEW_CLIENTS * len(healthy), CLIENT_SHARE * max(self._peak, self._before))
