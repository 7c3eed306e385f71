"""Answers scrapes of the metrics from one copy, so that any number of them costs little."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.shared_copy import SharedCopy, Turnstile

_AT_ONCE = 16
"""Scrapes that are answered at once per `metrics.max_age`. A flood of them must not slow down requests."""


class Scrapes:
    """The text of /metrics, made at most once per `metrics.max_age`."""

    def __init__(
        self, metrics: Metrics, read_budgets: Callable[[], Awaitable[None]], max_age: Callable[[], float]
    ) -> None:
        """read_budgets: reads all windows from Redis into the metrics. max_age: the setting, in seconds."""
        self.merge: Callable[[bytes], Awaitable[bytes]] | None = None
        """Adds the metrics of the other workers, if there are any."""
        self._metrics = metrics
        self._budgets = SharedCopy(read_budgets, max_age)
        self._text = SharedCopy(self._make, max_age)
        self._turnstile = Turnstile(_AT_ONCE, max_age)

    async def read_budgets(self) -> None:
        """Read all windows for the metrics and the console, unless that was done just now."""
        await self._budgets.get()

    async def answer(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        await self._turnstile.enter()
        return await self._text.get()

    async def _make(self) -> bytes:
        await self.read_budgets()
        text = await self.own()
        return await self.merge(text) if self.merge else text

    async def own(self) -> bytes:
        """The metrics of this process, without reading the budgets again."""
        parts = []
        for part in self._metrics.slices():
            parts.append(part)
            await asyncio.sleep(0)  # requests are served between two parts
        return b"".join(parts)
