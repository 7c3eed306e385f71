"""The composition root: builds the gateway, and the ASGI application in front of FastAPI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from gateway import __version__, admin, api, console, reload
from gateway.access_log import write_access_line
from gateway.budget import Ledger
from gateway.configfile import Loaded, load
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, ShuttingDown
from gateway.exchange import Exchange
from gateway.metrics import Metrics
from gateway.pipeline import CHAT, COMPLETIONS, EMBEDDINGS, Pipeline
from gateway.record import Record
from gateway.rulings import Rulings
from gateway.upstream import Upstream

if TYPE_CHECKING:
    from gateway.tracing import Tracing

log = logging.getLogger("thinkmeter")

_READ_AT_START = ("server", "limits", "redis", "reservations.lease")
"""Settings that a reload does not change, as what they configure lives as long as the process."""

Sink = Callable[[Record], None]


class Gateway:
    """The ASGI application. It owns what it builds; `reload` swaps the rulings in one assignment.

    The hot routes are plain ASGI in front of FastAPI's router, which alone costs a third of the throughput.
    """

    def __init__(self, loaded: Loaded, path: Path | None = None) -> None:
        """`path` is watched for changes when given."""
        settings = loaded.settings
        self.settings = settings
        self.path = path
        self.draining = False
        self.upstream = Upstream(settings)
        self.metrics = Metrics(self.upstream.backends)
        self.ledger = Ledger(settings, self.metrics.budget)
        self.pipeline = Pipeline(Rulings(loaded), self.upstream, self.ledger)
        self.console = console.Console(self)
        self.console.budgets = self.metrics.budget.windows
        self.console.read_budgets = self.read_budgets
        self.sinks: list[Sink] = [self.metrics.observe, self.console.observe]
        if settings.server.access_log:
            self.sinks.append(write_access_line)
        self.tracing = _tracing() if settings.server.tracing else None
        if self.tracing:
            self.sinks.append(self.tracing.end)
        self._hot = {route.path: route for route in (CHAT, COMPLETIONS, EMBEDDINGS)}
        self._rest = FastAPI(title="Thinkmeter", version=__version__, lifespan=self._lifespan, redoc_url=None)
        console.add_routes(self._rest, self, self.console)
        admin.add_routes(self._rest, self)
        api.add_routes(self._rest, self)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        if not self.settings.keys:
            log.warning("no API keys are configured: everybody who can reach this port may use it")
        await self.ledger.start()
        await self.upstream.start()
        watcher = asyncio.create_task(self._watch(self.path), name="config-watch") if self.path else None
        try:
            yield
        finally:
            if watcher:
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher
            await self.upstream.stop()
            await self.ledger.stop()
            if self.tracing:
                self.tracing.close()

    async def read_budgets(self) -> None:
        """Read all windows from Redis for the metrics and the console."""
        await self.ledger.refresh(list(self.pipeline.rulings.budgets.limits.values()))

    async def _watch(self, path: Path) -> None:
        await reload.watch(path, load, self.reload, lambda: self.metrics.reloads.labels("refused").inc())

    def reload(self, loaded: Loaded) -> None:
        """Use another configuration from the next request on; requests under way keep theirs."""
        rulings = Rulings(loaded)
        self.upstream.configure(loaded.settings)
        self.ledger.configure(loaded.settings)
        self.ledger.start_soon()
        self.pipeline.rulings = rulings
        for setting in _READ_AT_START:
            get = attrgetter(setting)
            if get(loaded.settings) != get(self.settings):
                log.warning("a change of `%s` takes effect at the next start", setting)
        self.metrics.reloads.labels("taken").inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self.settings.limits)
        record = Record(exchange.request_id)
        self.metrics.in_flight.inc()
        try:
            await self._serve(exchange, record, scope, receive, send)
        except GatewayError as error:
            await exchange.fail(error)
        except asyncio.CancelledError:
            await exchange.fail(ShuttingDown("The gateway is shutting down"))
        except Exception as error:
            log.exception("request %s failed", record.request_id)
            await exchange.fail(InternalError("Internal error", detail=type(error).__name__))
        finally:
            self.metrics.in_flight.dec()
            self._finish(exchange, record)

    async def _serve(
        self, exchange: Exchange, record: Record, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if route := self._hot.get(scope["path"]):
            record.route = route.path
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"Use POST on {route.path}")
            if self.tracing:
                self.tracing.begin(exchange.headers, record)
            await self.pipeline.serve(exchange, record, route)
            return

        async def relay(message: Message) -> None:
            await send(exchange.relay(message))

        scope["thinkmeter.exchange"] = exchange
        try:
            await self._rest(scope, receive, relay)
        finally:
            record.route = getattr(scope.get("route"), "path", "other")

    def _finish(self, exchange: Exchange, record: Record) -> None:
        record.status, record.error = exchange.status, exchange.error or record.error
        record.duration = record.elapsed()
        if record.error and record.error.level >= logging.ERROR:
            log.error("request %s: %s (%s)", record.request_id, record.error.message, record.error.detail)
        for sink in self.sinks:
            sink(record)


def _tracing() -> Tracing:
    from gateway.tracing import Tracing, exporting_provider  # noqa: PLC0415 - an optional extra

    return Tracing(exporting_provider())
