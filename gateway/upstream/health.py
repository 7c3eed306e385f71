"""Active health checks of all replicas. They also read the context length of each replica."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.openai_api.errors import read_context
from gateway.upstream.dispatch import Upstream
from gateway.upstream.pool import Backend, Pool

log = logging.getLogger("thinkmeter.upstream")


class HealthChecks:
    """Checks all replicas periodically."""

    def __init__(self, upstream: Upstream, backends: Callable[[], list[tuple[Pool, Backend]]]) -> None:
        """`backends` returns every replica of the configuration in use, with its pool."""
        self._upstream = upstream
        self._backends = backends
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check every replica once, then keep checking in the background."""
        await self.check()
        self._task = asyncio.create_task(self._keep_checking(), name="health-checks")

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def ready(self) -> bool:
        """Whether at least one replica of any model passes its health checks.

        Breakers do not count: they never leave out all replicas, and clients must not take the gateway down.
        """
        return any(backend.healthy for _, backend in self._backends())

    async def check(self) -> None:
        """Check every replica once, all at the same time."""
        await asyncio.gather(*(self._check(pool, backend) for pool, backend in self._backends()))

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(min(pool.health.interval for pool, _ in self._backends()))
            self._upstream.close_idle()
            await self.check()

    async def _check(self, pool: Pool, backend: Backend) -> None:
        before, health, connect, begun = backend.healthy, pool.health, pool.timeouts.connect, time.monotonic()
        try:
            async with asyncio.timeout(health.timeout):
                status, _ = await self._upstream.ask(backend.replica, b"GET", health.path, connect=connect)
                if not before:  # new, or restarted: it may have another context length now
                    replica = backend.replica
                    _, models = await self._upstream.ask(replica, b"GET", "/v1/models", connect=connect)
                    backend.context = read_context(models, pool.served_name)
        except (GatewayError, TimeoutError):
            status = 0
        backend.checked(alive=200 <= status < 300, failures=health.failures, begun=begun)
        if backend.healthy is not before:
            level, word = (logging.INFO, "healthy") if backend.healthy else (logging.WARNING, "not healthy")
            log.log(level, "backend %s is %s", backend.name, word)
