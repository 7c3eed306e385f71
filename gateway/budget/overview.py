"""Reads the state of windows from the store, for the admin API, the metrics, the console and the CLI.

There may be tens of thousands of windows. They are read in slices, and requests are served in between.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from heapq import heappush, heappushpop
from typing import Any

from gateway.budget.limits import BudgetLimits, Limit
from gateway.budget.observer import BudgetObserver, WindowSurvey, WindowView, window_label
from gateway.budget.pricing import Pricing
from gateway.store.commands import WindowState
from gateway.store.connection import StoreUnavailable
from gateway.store.store import Store

_VIEWS = 50  # views made between two turns of the event loop


class MostUsed:
    """Keeps those windows of one budget that are closest to their limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, int, Limit, WindowState]] = []
        self._seen = 0

    def add(self, limit: Limit, state: WindowState) -> None:
        """Take a window into account. Of two that are equally full, the earlier one is kept."""
        used = (state.settled + state.reserved) / max(state.cap, 1)
        entry = (used, -self._seen, limit, state)
        self._seen += 1
        if len(self._heap) < self._most:
            heappush(self._heap, entry)
        elif self._most:
            heappushpop(self._heap, entry)

    def kept(self) -> list[tuple[Limit, WindowState]]:
        """The windows kept, in the order in which they came."""
        ordered = sorted(self._heap, key=lambda entry: -entry[1])
        return [(limit, state) for _, _, limit, state in ordered]

    @property
    def left_out(self) -> int:
        """How many came and were not kept."""
        return self._seen - len(self._heap)


class BudgetOverview:
    """The windows of a configuration, read on demand."""

    def __init__(self, store: Store, pricing: Pricing, observer: BudgetObserver) -> None:
        self._store, self._pricing, self._observer = store, pricing, observer
        self.survey = WindowSurvey()
        """The windows at the last `refresh`; empty if Redis was away."""

    async def read(self, limits: Sequence[Limit]) -> list[WindowView]:
        """Read these windows now. Raises: StoreUnavailable."""
        return [view async for views in self.slices(limits) for view in views]

    async def slices(self, limits: Sequence[Limit]) -> AsyncIterator[list[WindowView]]:
        """Read these windows now, some at a time. Raises: StoreUnavailable."""
        async for pairs in self._states(limits):
            yield self._views(pairs)

    async def refresh(self, budgets: BudgetLimits, holders: int) -> None:
        """Read all windows into `survey`, and pass it to the observer. Without Redis it is empty.

        holders: how many of each budget to keep.
        """
        limits, up = list(budgets.limits.values()), self._store.up
        survey = WindowSurvey()
        try:
            survey = await self._survey(limits, holders) if limits and up else survey
        except StoreUnavailable:
            up = False
        self.survey = survey
        in_use = up if budgets.configured else None  # without budgets Redis is neither up nor down
        self._observer.windows_read(survey, up=in_use, undelivered=len(self._store.journal))

    async def _survey(self, limits: Sequence[Limit], holders: int) -> WindowSurvey:
        most: dict[str, MostUsed] = {}
        stale: Counter[str] = Counter()
        async for pairs in self._states(limits):
            for limit, state in pairs:
                name = limit.budget.name
                if name not in most:
                    most[name] = MostUsed(holders)
                most[name].add(limit, state)
                stale[name] += state.stale
        kept = [pair for windows in most.values() for pair in windows.kept()]
        views: list[WindowView] = []
        for start in range(0, len(kept), _VIEWS):
            views += self._views(kept[start : start + _VIEWS])
            await asyncio.sleep(0)
        return WindowSurvey(views, {name: windows.left_out for name, windows in most.items()}, stale)

    async def _states(self, limits: Sequence[Limit]) -> AsyncIterator[list[tuple[Limit, WindowState]]]:
        done = 0
        async for states in self._store.slices([limit.window for limit in limits]):
            yield list(zip(limits[done : done + len(states)], states, strict=True))
            done += len(states)

    def _views(self, pairs: Sequence[tuple[Limit, WindowState]]) -> list[WindowView]:
        prices = self._pricing.highest()
        views = []
        for limit, state in pairs:
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

    def console_rows(self) -> list[dict[str, Any]]:
        """The windows at the last `refresh`, as the event stream of the console carries them."""
        survey = self.survey
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
                "stale": survey.stale[view.budget],
                "left_out": survey.left_out[view.budget],
            }
            for view in survey.windows
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
