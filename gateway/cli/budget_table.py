"""`thinkmeter budget`: the state of all windows of a configuration, read directly from Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rich.box import SIMPLE_HEAD
from rich.table import Table

from gateway.budget.ledger import open_budget
from gateway.budget.limits import BudgetLimits, duration, span
from gateway.budget.observer import NullObserver, WindowView
from gateway.budget.overview import BudgetOverview
from gateway.config.settings import Settings
from gateway.store.connection import StoreUnavailable


@asynccontextmanager
async def _reading(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[list[WindowView]]]]:
    """Connects to Redis, and yields a function that reads all windows."""
    observer = NullObserver()
    ledger = open_budget(settings, observer)
    overview = BudgetOverview(ledger.store, ledger.pricing, observer)
    limits = list(BudgetLimits(settings).limits.values())
    await ledger.start()
    try:
        yield lambda: overview.read(limits)
    finally:
        await ledger.stop()


def windows_table(windows: list[WindowView]) -> Table:
    """One row per window, with a bar of settled and reserved tokens in proportion to the cap."""
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


async def read_windows(settings: Settings) -> list[WindowView]:
    """The state of all windows once. Raises: StoreUnavailable, RedisServerError."""
    async with _reading(settings) as read:
        return await read()


async def watch_windows(
    settings: Settings, show: Callable[[Table | str], None], seconds: float = 1.0
) -> None:
    """Show all windows again and again until cancelled. Raises: RedisServerError."""
    async with _reading(settings) as read:
        while True:
            try:
                show(windows_table(await read()))
            except StoreUnavailable as error:
                show(f"The budgets cannot be read: {error}")
            await asyncio.sleep(seconds)
