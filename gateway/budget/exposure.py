"""Bounds how far running requests together may exceed their reservations under `reserve: p95`. No I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from gateway.budget.limits import Limit
from gateway.budget.reservation import Demand

Claim = tuple[tuple[str, int], ...]
"""Tokens that one request may spend beyond its reservation, by window."""


class Exposures:
    """What the running requests of this gateway may spend beyond their reservations, by window."""

    def __init__(self, share: float) -> None:
        self.share = share
        """The most of a limit that they may exceed their reservations by, all together."""
        self._tokens: dict[str, int] = defaultdict(int)

    def claim(self, limits: tuple[Limit, ...], demand: Demand) -> tuple[Demand, Claim]:
        """The demand, made strict if a limit has no room for its exposure, and what to give to `release`."""
        wanted = [(limit, demand.exposure(limit)) for limit in limits if limit.budget.reserve == "p95"]
        if not wanted:
            return demand, ()
        exposed = tuple((limit.window.key, tokens) for limit, tokens in wanted if tokens > 0)
        if not exposed:
            return demand, ()
        if any(
            self._tokens.get(limit.window.key, 0) + tokens > self.share * limit.budget.tokens
            for limit, tokens in wanted
        ):
            return replace(demand, strict=True), ()
        for key, tokens in exposed:
            self._tokens[key] += tokens
        return demand, exposed

    def release(self, claim: Claim) -> None:
        """End the exposure of a request that has been settled, or refused."""
        for key, tokens in claim:
            self._tokens[key] -= tokens
            if not self._tokens[key]:
                del self._tokens[key]
