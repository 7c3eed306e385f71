"""Reads the state of all windows from the store, once for the admin API, the metrics and the console."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gateway.budget_observer import WindowView, stale_tokens, window_label
from gateway.pricing import Pricing
from gateway.redis_link import StoreUnavailable
from gateway.reservation import Budgets, Limit
from gateway.store import Store
from gateway.telemetry.metrics import BudgetMetrics


class BudgetOverview:
    """The windows of a configuration, read on demand."""

    def __init__(self, store: Store, pricing: Pricing, metrics: BudgetMetrics) -> None:
        self._store, self._pricing, self._metrics = store, pricing, metrics
        self.windows: list[WindowView] = []
        """All windows at the last `refresh`; empty if Redis was away."""

    async def read(self, limits: Sequence[Limit]) -> list[WindowView]:
        """Read these windows now. Raises: StoreUnavailable."""
        _, uses = await self._store.status([limit.window for limit in limits])
        prices = self._pricing.highest()
        views = []
        for limit, use in zip(limits, uses, strict=True):
            paced = prices.get(limit.budget.name)
            views.append(
                WindowView(
                    budget=limit.budget.name,
                    scope=limit.budget.scope,
                    holder=limit.holder,
                    window=limit.budget.window,
                    cap=use.cap,
                    configured=limit.budget.tokens,
                    settled=use.settled,
                    reserved=use.reserved,
                    stale=use.stale,
                    reset=use.reset / 1000,
                    requests=use.arrivals,
                    limited=use.limited,
                    price=self._pricing.price([limit], 0.0) or None,
                    budget_price=paced.price if paced else None,
                    at_bound=paced.at_bound == "ceiling" if paced else None,
                )
            )
        return views

    async def refresh(self, budgets: Budgets) -> None:
        """Read all windows again and pass them to the metrics; windows that cannot be read are dropped."""
        limits, up = list(budgets.limits.values()), self._store.link.up
        self._metrics.undelivered.set(len(self._store.journal))
        windows: list[WindowView] = []
        try:
            windows = await self.read(limits) if limits and up else []
        except StoreUnavailable:
            up = False
        self.windows = windows
        # without budgets Redis is not used, so that it is neither up nor down
        self._metrics.up.set(up if budgets.configured else math.nan)
        self._metrics.show(windows)

    def console_rows(self) -> list[dict[str, Any]]:
        """The windows at the last `refresh`, as the console's stream carries them."""
        stale = stale_tokens(self.windows)
        return [
            {
                "budget": view.budget,
                "holder": view.holder,
                "window": window_label(view),
                "cap": view.cap,
                "settled": view.settled,
                "reserved": view.reserved,
                "price": view.budget_price,
                "at_bound": None if view.at_bound is None else int(view.at_bound),
                "stale": stale[view.budget],
            }
            for view in self.windows
        ]


def admin_row(view: WindowView) -> dict[str, Any]:
    """One window, as the admin API and `thinkmeter budget --json` return it."""
    return {
        "budget": view.budget,
        "scope": view.scope,
        "holder": view.holder,
        "window": view.window,
        "cap": view.cap,
        "configured": view.configured,
        "settled": view.settled,
        "reserved": view.reserved,
        "remaining": view.remaining,
        "stale": view.stale,
        "reset_seconds": view.reset,
        "requests": view.requests,
        "limited": view.limited,
        "price": view.price,
    }
