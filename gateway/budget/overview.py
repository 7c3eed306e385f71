"""Reads the state of windows from the store, for the admin API, the metrics, the console and the CLI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.budget.limits import BudgetLimits, Limit
from gateway.budget.observer import BudgetObserver, WindowView, stale_tokens, window_label
from gateway.budget.pricing import Pricing
from gateway.store.connection import StoreUnavailable
from gateway.store.store import Store


class BudgetOverview:
    """The windows of a configuration, read on demand."""

    def __init__(self, store: Store, pricing: Pricing, observer: BudgetObserver) -> None:
        self._store, self._pricing, self._observer = store, pricing, observer
        self.windows: list[WindowView] = []
        """All windows at the last `refresh`; empty if Redis was away."""

    async def read(self, limits: Sequence[Limit]) -> list[WindowView]:
        """Read these windows now. Raises: StoreUnavailable."""
        _, states = await self._store.status([limit.window for limit in limits])
        prices = self._pricing.highest()
        views = []
        for limit, state in zip(limits, states, strict=True):
            update = prices.get(limit.budget.name)
            views.append(
                WindowView(
                    budget=limit.budget.name,
                    scope=limit.budget.scope,
                    holder=limit.holder,
                    window=limit.budget.window,
                    cap=state.cap,
                    configured=limit.budget.tokens,
                    settled=state.settled,
                    reserved=state.reserved,
                    stale=state.stale,
                    reset=state.reset / 1000,
                    requests=state.arrivals,
                    limited=state.limited,
                    price=self._pricing.price([limit], 0.0) or None,
                    budget_price=update.price if update else None,
                    at_bound=update.at_bound == "ceiling" if update else None,
                )
            )
        return views

    async def refresh(self, budgets: BudgetLimits) -> None:
        """Read all windows into `windows`, and pass them to the observer. Without Redis there are none."""
        limits, up = list(budgets.limits.values()), self._store.up
        windows: list[WindowView] = []
        try:
            windows = await self.read(limits) if limits and up else []
        except StoreUnavailable:
            up = False
        self.windows = windows
        in_use = up if budgets.configured else None  # without budgets Redis is neither up nor down
        self._observer.windows_read(windows, up=in_use, undelivered=len(self._store.journal))

    def console_rows(self) -> list[dict[str, Any]]:
        """The windows at the last `refresh`, as the event stream of the console carries them."""
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
