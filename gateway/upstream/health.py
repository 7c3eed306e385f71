"""Active health checks of all replicas. They also read the context length of each replica."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from gateway.errors import GatewayError
from gateway.openai_api.model_cards import listed_models, lists, read_context
from gateway.upstream.causes import Cause, status_cause
from gateway.upstream.dispatch import Upstream
from gateway.upstream.pool import Backend, Pool

log = logging.getLogger("thinkmeter.upstream")

_MODELS = "/v1/models"


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

    def causes(self) -> list[str]:
        """What is wrong with the replicas, each sentence once, without names or addresses."""
        return sorted({backend.cause.sentence for _, backend in self._backends() if backend.cause})

    async def check(self) -> None:
        """Check every replica once, all at the same time."""
        await asyncio.gather(*(self._check(pool, backend) for pool, backend in self._backends()))

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(min(pool.health.interval for pool, _ in self._backends()))
            self._upstream.close_idle()
            try:
                await self.check()
            except Exception:  # without checks, no replica would ever leave or return
                log.exception("a health check failed unexpectedly")

    async def _check(self, pool: Pool, backend: Backend) -> None:
        before, cause_before, begun = backend.healthy, backend.cause, time.monotonic()
        alive, backend.cause = await self._examine(pool, backend)
        backend.checked(alive=alive, failures=pool.health.failures, begun=begun)
        new_cause = backend.cause and (not cause_before or backend.cause.word != cause_before.word)
        forgiven = backend.healthy and not alive
        if backend.healthy is not before or (new_cause and not forgiven):
            _report(backend)

    async def _examine(self, pool: Pool, backend: Backend) -> tuple[bool, Cause | None]:
        """Whether a replica answers its health check, and what is wrong with it."""
        health = pool.health
        # less than the whole time, to tell a connection that never opens from a response that never comes
        connect = min(pool.timeouts.connect, 0.9 * health.timeout)
        ask = partial(
            self._upstream.ask, backend.replica, b"GET", connect=connect, age=pool.timeouts.connection_age
        )
        try:
            async with asyncio.timeout(health.timeout):
                status, body = await ask(health.path)
                if not 200 <= status < 300:
                    return False, status_cause(status, health.path)
                is_page = body.lstrip()[:1] == b"<"  # of a login, or of another server
                if backend.healthy and not backend.cause and backend.context and not is_page:
                    return True, None
                # new, or restarted: it may have other models or another context length now. Or it has stated
                # no length yet: an adapter may have been loaded since.
                status, models = await ask(_MODELS)
        except TimeoutError:
            return False, Cause("response_timeout", f"{health.timeout:g} s")
        except GatewayError as error:
            return False, error.detail if isinstance(error.detail, Cause) else Cause(
                "unreadable", error.message
            )
        if not 200 <= status < 300:
            return True, status_cause(status, _MODELS)
        backend.context = read_context(models, pool.served_name)
        return True, _model_cause(models, pool.served_name)


def _model_cause(models: bytes, name: str) -> Cause | None:
    """What is wrong with a list of models; None if it has this one."""
    names = listed_models(models)
    if names is None:
        kind = "an HTML page" if models.lstrip()[:1] == b"<" else "other content"
        return Cause("models_unreadable", f"GET {_MODELS}: {kind} of {len(models)} bytes")
    if not lists(names, name):
        return Cause("model_not_listed", f"GET {_MODELS}: {name} is none of {len(names)}")
    return None


def _report(backend: Backend) -> None:
    """Log the state of a replica, with what is wrong with it."""
    level = logging.INFO if backend.healthy and not backend.cause else logging.WARNING
    state = "healthy" if backend.healthy else "not healthy"
    log.log(level, "backend %s is %s%s", backend.name, state, f": {backend.cause}" if backend.cause else "")
