"""What `thinkmeter budget` shows: every window of a configuration, read straight from its Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from gateway.budget import Ledger
from gateway.config import Settings
from gateway.metrics import Metrics
from gateway.redis_link import StoreUnavailable
from gateway.reservation import Budgets, duration, span


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Ledger, Budgets]]:
    """A ledger that only looks."""
    ledger = Ledger(settings, Metrics(tuple).budget)
    await ledger.start()
    try:
        yield ledger, Budgets(settings)
    finally:
        await ledger.stop()


def table(items: list[dict[str, Any]]) -> Table:
    """One row for each window; the bar is settled, then reserved, of the cap."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("budget", "holder", "window", "use"):
        shown.add_column(name)
    for name in ("settled", "reserved", "cap", "resets"):
        shown.add_column(name, justify="right")
    for item in items:
        shown.add_row(
            item["budget"],
            item["holder"],
            span(item["window"]),
            _bar(item["settled"], item["reserved"], item["cap"]),
            f"{item['settled']:,}",
            f"{item['reserved']:,}",
            f"{item['cap']:,}",
            duration(round(item["reset_seconds"] * 1000)) if item["reset_seconds"] else "",
        )
    return shown


def _bar(settled: int, reserved: int, cap: int, width: int = 12) -> str:
    full = min(round(width * settled / cap), width)
    held = min(round(width * (settled + reserved) / cap), width) - full
    return "█" * full + "▒" * held + "·" * (width - full - held)


async def view(settings: Settings) -> list[dict[str, Any]]:
    """The state of all windows once; raises StoreUnavailable."""
    async with opened(settings) as (ledger, budgets):
        return await ledger.overview(list(budgets.limits.values()))


async def watch(settings: Settings, show: Callable[[Table | str], None], seconds: float = 1.0) -> None:
    """Show all windows again and again, for ever."""
    async with opened(settings) as (ledger, budgets):
        while True:
            try:
                show(table(await ledger.overview(list(budgets.limits.values()))))
            except StoreUnavailable as error:
                show(f"Redis is away: {error}")
            await asyncio.sleep(seconds)
