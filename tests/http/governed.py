"""A gateway under one budget, on a real Redis."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.fakes.backend import Backend
from tests.redis import RealRedis
from tests.serving import Running, configuration, serving


@contextlib.asynccontextmanager
async def governed(backend: Backend, server: RealRedis, **budget: Any) -> AsyncIterator[Running]:
    """A gateway with one budget, on an empty Redis."""
    server.ask("FLUSHALL")
    budgets = [{"name": "b0", "window": "1m", "tokens": 100_000} | budget]
    settings = configuration(
        backend.url,
        redis={"url": server.url},
        head="baseline",
        price=0,
        budgets=budgets,
        reservations={"shortest_answer": 16},
    )
    async with serving(settings) as gateway:
        yield gateway
