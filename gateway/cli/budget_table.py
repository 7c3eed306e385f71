"""What `thinkmeter budget` shows: every window of a configuration, read straight from its Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rich.box import SIMPLE_HEAD
from rich.table import Table

from gateway.budget import Ledger
from gateway.budget_observer import WindowView
from gateway.budget_overview import BudgetOverview
from gateway.config.settings import Settings
from gateway.redis_link import StoreUnavailable
from gateway.reservation import Budgets, duration, span
from gateway.telemetry.metrics import Metrics


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[list[WindowView]]]]:
    """A function that reads all windows."""
    metrics = Metrics(tuple).budget
    ledger = Ledger(settings, metrics)
    overview, limits = (
        BudgetOverview(ledger.store, ledger.pricing, metrics),
        list(Budgets(settings).limits.values()),
    )
    await ledger.start()
    try:
        yield lambda: overview.read(limits)
    finally:
        await ledger.stop()


def table(windows: list[WindowView]) -> Table:
    """One row for each window; the bar is settled, then reserved, of the cap."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("budget", "holder", "window", "use"):
        shown.add_column(name)
    for name in ("settled", "reserved", "cap", "resets"):
        shown.add_column(name, justify="right")
    for view in windows:
        shown.add_row(
            view.budget,
            view.holder,
            span(view.window),
            _bar(view.settled, view.reserved, view.cap),
            f"{view.settled:,}",
            f"{view.reserved:,}",
            f"{view.cap:,}",
            duration(round(view.reset * 1000)) if view.reset else "",
        )
    return shown


def _bar(settled: int, reserved: int, cap: int, width: int = 12) -> str:
    full = min(round(width * settled / cap), width)
    held = min(round(width * (settled + reserved) / cap), width) - full
    return "█" * full + "▒" * held + "·" * (width - full - held)


async def view(settings: Settings) -> list[WindowView]:
    """The state of all windows once. Raises: StoreUnavailable, RedisServerError."""
    async with opened(settings) as read:
        return await read()


async def watch(settings: Settings, show: Callable[[Table | str], None], seconds: float = 1.0) -> None:
    """Show all windows again and again until cancelled. Raises: RedisServerError."""
    async with opened(settings) as read:
        while True:
            try:
                show(table(await read()))
            except StoreUnavailable as error:
                show(f"Redis is away: {error}")
            await asyncio.sleep(seconds)
