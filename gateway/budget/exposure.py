"""Bounds how far running requests together may exceed their reservations under `reserve: p95`. No I/O."""

from __future__ import annotations

from collections import defaultdict

from msgspec.structs import replace

from gateway.budget.limits import Limit
from gateway.budget.reservation import Claim, Demand


class Exposures:
    """What the running requests of this gateway may spend beyond their reservations, by window."""

    def __init__(self, share: float) -> None:
        self.share = share
        """The most of a limit that they may exceed their reservations by, all together."""
        self._tokens: dict[str, int] = defaultdict(int)

    def claim(self, limits: tuple[Limit, ...], demand: Demand) -> tuple[Demand, Claim]:
        """The demand, made strict if a limit has no room for its exposure, and what to give to `release`."""
        soft = [limit for limit in limits if limit.budget.reserve == "p95"]
        tokens = demand.exposure if soft else 0
        if not tokens:
            return demand, ()
        running = self._tokens
        for limit in soft:
            if running.get(limit.window.key, 0) + tokens > self.share * limit.budget.tokens:
                return replace(demand, strict=True), ()
        for limit in soft:
            running[limit.window.key] += tokens
        return demand, tuple([(limit.window.key, tokens) for limit in soft])

    def release(self, claim: Claim) -> None:
        """End the exposure of a request that has been settled, or refused."""
        for key, tokens in claim:
            self._tokens[key] -= tokens
            if not self._tokens[key]:
                del self._tokens[key]
