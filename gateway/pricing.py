"""Today's price of tokens under each budget: the pure controller of `pacing`, fed from Redis once a second.

What the controller remembers lies in Redis beside the window, so that all gateways follow one price; whoever
reads first writes, by compare-and-set.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.pacing import Memory, Paced, Pacing, Reading, observe
from gateway.redis_link import StoreUnavailable
from gateway.reservation import Limit, Need
from gateway.routing.plan import RoutingPlan
from gateway.store import Store, Use
from gateway.telemetry.metrics import BudgetMetrics
from gateway.window import Window
from router_model.allocation import PriceTable, RecentPrices

log = logging.getLogger("thinkmeter.budget")

TICK = 1.0
"""Seconds between two readings of a budget in use."""

BYTES_PER_TOKEN = 4
"""Of prompts, for the price alone: reservations go by the upper bound."""

_IDLE = 60.0  # seconds after which a budget nobody asks is no longer read


@dataclass(slots=True)
class _Course:
    """One budget of one holder, as this gateway sees it."""

    limit: Limit
    prices: RecentPrices
    asked_at: float = 0.0
    largest: deque[int] = field(default_factory=lambda: deque(maxlen=512))
    """The most that each of the requests seen last may reserve."""
    seen: tuple[Reading, Memory | None, float] | None = None
    paced: Paced | None = None

    @property
    def pacing(self) -> Pacing:
        return Pacing(self.limit.budget.window, largest=max(self.largest, default=0))

    def read(self, now: float, use: Use) -> tuple[Window, bytes, str] | None:
        """Take a reading; returns the memory to be replaced, and by what."""
        memory = Memory.load(use.memory)
        reading = Reading(
            now, use.settled, use.reserved, use.cap, use.arrivals, use.limited, use.spent, use.expected
        )
        self.seen = reading, memory, time.monotonic()
        self.paced = observe(self.pacing, self.prices.table, memory, reading)
        if memory and self.paced.memory.at - memory.at < self.limit.budget.window / 60:
            return None
        return self.limit.window, use.memory, self.paced.memory.dump()

    def price(self) -> float:
        """The price for a request now; one whose last reading is old is thought on to this moment."""
        if not self.paced or not self.seen:
            return 0.0
        reading, memory, at = self.seen
        age = time.monotonic() - at
        if age < 2 * TICK:
            return self.paced.price
        return observe(self.pacing, self.prices.table, memory, reading._replace(now=reading.now + age)).price


class Pricing:
    """The prices of all budgets in use."""

    def __init__(self, store: Store, metrics: BudgetMetrics) -> None:
        self._store, self._metrics = store, metrics
        self._courses: dict[str, _Course] = {}

    def price(self, limits: Iterable[Limit], least: float) -> float:
        """The highest of the limits' prices, and no lower than `least`."""
        courses = (self._courses.get(limit.window.key) for limit in limits)
        return max([least, *(course.price() for course in courses if course)])

    def tight(self, limits: Iterable[Limit]) -> bool:
        """Whether any of the limits leaves no room for experiments."""
        courses = (self._courses.get(limit.window.key) for limit in limits)
        return any(course.paced.tight for course in courses if course and course.paced)

    def note(self, limits: Iterable[Limit], judgement: RoutingPlan, need: Need, least: float) -> None:
        """A request's estimates for the tiers it may get, and the most it may reserve.

        least: the price until enough requests were seen to tell what tokens buy, where the head cannot.
        """
        now, largest = time.monotonic(), need.largest
        correct, tokens = judgement.estimates(need.choices)
        for limit in limits:
            course = self._courses.get(limit.window.key)
            if course is None or course.limit is not limit:
                first = judgement.prices or PriceTable([1.0], [max(least, 1e-9)])
                course = self._courses[limit.window.key] = _Course(limit, RecentPrices(first))
            course.asked_at = now
            course.largest.append(largest)
            prompt = need.prompt / BYTES_PER_TOKEN if limit.budget.count == "total" else 0.0
            course.prices.add(correct, [prompt + count for count in tokens])

    async def tick(self) -> None:
        """Read the budgets in use and move their prices."""
        now = time.monotonic()
        for key in [key for key, course in self._courses.items() if now - course.asked_at > _IDLE]:
            self._metrics.unprice(self._courses.pop(key).limit.budget.name)
        courses = list(self._courses.values())
        if not courses or not self._store.link.up:
            return
        try:
            at, uses = await self._store.status([course.limit.window for course in courses])
            changes = [course.read(at, use) for course, use in zip(courses, uses, strict=True)]
            await self._store.pace([change for change in changes if change])
        except StoreUnavailable as error:
            log.debug("prices stay as they are: %s", error)
        for name, paced in self.highest().items():
            self._metrics.priced(name, paced.price, at_bound=paced.at_bound == "ceiling")

    def highest(self) -> dict[str, Paced]:
        """The price of each budget by name: the highest among its holders, as of the last update."""
        highest: dict[str, Paced] = {}
        for course in self._courses.values():
            name, paced = course.limit.budget.name, course.paced
            if paced and (name not in highest or paced.price > highest[name].price):
                highest[name] = paced
        return highest
