"""Connections to replicas."""

from __future__ import annotations

import asyncio

from tests.fakes.backend import Backend
from tests.http.wire import post
from tests.serving import configuration, serving


async def test_busy_connections_end(backend: Backend) -> None:
    """After `connection_age`, requests and health checks open new ones, however busy the old ones are."""
    health = {"interval": 0.02, "timeout": 20}
    settings = configuration(backend.url, health=health, timeouts={"connection_age": 0.1})
    async with serving(settings) as running:
        await backend.wait_until(lambda b: b.connections)
        first = set(backend.connections)
        async with asyncio.timeout(10):
            while first & backend.connections:
                assert (await post(running)).status == 200
