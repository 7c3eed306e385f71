"""Keeps the current price of each budget in use. The controller in `pacing` updates it once per second.

The controller's memory is stored in Redis beside the window, so that all gateways follow one price. The first
gateway to read a window writes the new memory; compare-and-set keeps the others from overwriting it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.budget.limits import Limit
from gateway.budget.observer import BudgetObserver
from gateway.budget.pacing import Memory, PaceSettings, PriceUpdate, Reading, update_price
from gateway.budget.reservation import Demand
from gateway.store.commands import Window, WindowState
from gateway.store.connection import StoreUnavailable
from gateway.store.store import Store
from router_model.allocation import PriceTable, RecentPrices, RequestEstimates

log = logging.getLogger("thinkmeter.budget")

TICK = 1.0
"""Seconds between two updates."""

_SLICE = 100  # prices updated at once, in about 2 ms; other requests are served before the next ones

BYTES_PER_TOKEN = 4
"""Estimate of the length of prompts, for the price only: reservations use an upper bound."""


@dataclass(slots=True)
class BudgetPricer:
    """The price of one budget for one holder, as this gateway sees it."""

    limit: Limit
    prices: RecentPrices
    """What tokens buy, from the estimates of the last requests."""
    used_at: float = 0.0
    """Monotonic time of the last request."""
    largest: deque[int] = field(default_factory=lambda: deque(maxlen=512))
    """The most tokens that each of the last requests could reserve."""
    last: tuple[Reading, Memory | None, float] | None = None
    """The last reading, the memory stored at that time, and the monotonic time of the reading."""
    update: PriceUpdate | None = None
    """The controller's result for the last reading."""

    @property
    def settings(self) -> PaceSettings:
        return PaceSettings(self.limit.budget.window, largest=max(self.largest, default=0))

    def read(self, now: float, state: WindowState) -> tuple[Window, bytes, str] | None:
        """Update the price. now: the server's time in seconds.

        Returns (window, old memory, new memory) if the memory is to be stored: once per 60th of the window.
        """
        memory = Memory.load(state.memory)
        reading = Reading(
            now=now,
            settled=state.settled,
            reserved=state.reserved,
            cap=state.cap,
            arrivals=state.arrivals,
            limited=state.limited,
            spent=state.spent,
            expected=state.expected,
        )
        self.last = reading, memory, time.monotonic()
        self.update = update_price(self.settings, self.prices.table, memory, reading)
        if memory and 0 <= self.update.memory.at - memory.at < self.limit.budget.window / 60:
            return None
        return self.limit.window, state.memory, self.update.memory.dump()

    def price(self, now: float) -> float:
        """The price for a request now. If Redis cannot be read, the last reading counts as read just now.

        now: monotonic time.
        """
        if self.update is None or self.last is None:
            return 0.0
        reading, memory, taken_at = self.last
        age = now - taken_at
        if age < 2 * TICK:
            return self.update.price
        reading = reading._replace(now=reading.now + age)
        return update_price(self.settings, self.prices.table, memory, reading).price


class Pricing:
    """The prices of all budgets in use."""

    def __init__(self, store: Store, observer: BudgetObserver, *, idle_seconds: float = 60.0) -> None:
        """idle_seconds: after so long without a request a budget is no longer updated."""
        self._store, self._observer = store, observer
        self.idle_seconds = idle_seconds
        self.pricers: dict[str, BudgetPricer] = {}
        """By key of the window."""

    def price(self, limits: Iterable[Limit], least: float) -> float:
        """The highest price of these limits, but at least `least`."""
        highest, now = least, time.monotonic()
        for limit in limits:
            pricer = self.pricers.get(limit.window.key)
            if pricer is not None and (price := pricer.price(now)) > highest:
                highest = price
        return highest

    def tight(self, limits: Iterable[Limit]) -> bool:
        """Whether one of these limits is too full for experiments."""
        pricers = (self.pricers.get(limit.window.key) for limit in limits)
        return any(pricer.update.tight for pricer in pricers if pricer and pricer.update)

    def note(
        self,
        limits: Iterable[Limit],
        estimates: tuple[Sequence[float], Sequence[float]],
        first_table: PriceTable | None,
        demand: Demand,
        least: float,
    ) -> None:
        """Take a request into account.

        estimates: (P(correct), completion tokens of one choice) of the tiers the request may get.
        first_table: what tokens buy according to the head, used until enough requests have been seen.
        least: the price until then, if there is no `first_table`.
        """
        now, largest = time.monotonic(), demand.largest
        request = RequestEstimates(*estimates, demand.choices)
        for limit in limits:
            pricer = self.pricers.get(limit.window.key)
            if pricer is None or pricer.limit is not limit:
                first = first_table or PriceTable([1.0], [max(least, 1e-9)])
                pricer = self.pricers[limit.window.key] = BudgetPricer(limit, RecentPrices(first))
            pricer.used_at = now
            pricer.largest.append(largest)
            if limit.budget.count == "total":
                prompt = demand.prompt / BYTES_PER_TOKEN
                pricer.prices.add(RequestEstimates(*estimates, demand.choices, prompt))
            else:
                pricer.prices.add(request)

    async def keep_updating(self) -> None:
        """Update the prices once per second, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.tick()
            except Exception:  # an old price is better than a loop that has ended
                log.exception("updating prices failed")

    async def tick(self) -> None:
        """Read the windows in use and update their prices."""
        idle_since = time.monotonic() - self.idle_seconds
        for key in [key for key, pricer in self.pricers.items() if pricer.used_at < idle_since]:
            self._observer.unpriced(self.pricers.pop(key).limit.budget.name)
        pricers = list(self.pricers.values())
        if not pricers or not self._store.up:
            return
        try:
            for first in range(0, len(pricers), _SLICE):
                await self._update(pricers[first : first + _SLICE])
        except StoreUnavailable as error:
            log.debug("keeping the old prices: %s", error)
        for name, update in self.highest().items():
            self._observer.priced(name, update.price, at_bound=update.at_bound == "ceiling")

    async def _update(self, pricers: Sequence[BudgetPricer]) -> None:
        """Update some prices in one piece. Raises: StoreUnavailable.

        Between two new tables, which take long, other requests are served.
        """
        for pricer in pricers:
            if pricer.prices.renew():
                await asyncio.sleep(0)
        now, states = await self._store.status([pricer.limit.window for pricer in pricers])
        changes = [pricer.read(now, state) for pricer, state in zip(pricers, states, strict=True)]
        await self._store.pace([change for change in changes if change])

    def highest(self) -> dict[str, PriceUpdate]:
        """The price of each budget by name: the highest among its holders, as of the last update."""
        highest: dict[str, PriceUpdate] = {}
        for pricer in self.pricers.values():
            name, update = pricer.limit.budget.name, pricer.update
            if update and (name not in highest or update.price > highest[name].price):
                highest[name] = update
        return highest
