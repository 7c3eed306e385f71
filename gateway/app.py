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
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import __version__
from gateway.api import admin, console
from gateway.api import routes as api
from gateway.budget.ledger import open_budget
from gateway.budget.overview import BudgetOverview
from gateway.config import watch as reload
from gateway.config.server import CorsSettings
from gateway.console.state import Console
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, ShuttingDown
from gateway.http import protocol, server
from gateway.http.browsers import HostRule
from gateway.http.exchange import Exchange
from gateway.openai_api.endpoints import ENDPOINTS
from gateway.pipeline import Pipeline
from gateway.snapshot import Snapshot
from gateway.telemetry.access_log import write_access_line
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import Record
from gateway.upstream.dispatch import Upstream
from gateway.upstream.health import HealthChecks
from gateway.upstream.pool import Backend, Pool

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from gateway.telemetry.tracing import Tracing

log = logging.getLogger("thinkmeter")

_READ_AT_START = ("server", "limits", "redis", "reservations.lease")
"""Settings that a reload does not change, as what they configure lives as long as the process."""

Sink = Callable[[Record], None]


class Gateway:
    """The ASGI application. Builds everything that lives as long as the process, and connects it.

    The hot routes are plain ASGI in front of FastAPI's router, which alone costs a third of the throughput.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        path: Path | None = None,
        *,
        span_provider: Callable[[], TracerProvider] | None = None,
    ) -> None:
        """`path` is the configuration file to watch for changes, if any.

        span_provider: makes the provider of spans under `server.tracing`, in place of one that exports them.
        """
        self.settings = settings = snapshot.settings
        """The settings at the start of the process."""
        self.draining = False
        self._path = path
        self.upstream = Upstream()
        self.metrics = Metrics(self.backends, lambda: self.snapshot.evidence)
        self.ledger = open_budget(settings, self.metrics.budget)
        self.overview = BudgetOverview(self.ledger.store, self.ledger.pricing, self.metrics.budget)
        self.pipeline = Pipeline(snapshot, self.upstream, self.ledger)
        self.health = HealthChecks(self.upstream, self.backends)
        self.console = Console(
            lambda: self.snapshot,
            draining=lambda: self.draining,
            budgets=self.overview.console_rows,
            read_budgets=self.read_budgets,
        )
        self.sinks: list[Sink] = [self.metrics.count, self.console.remember]
        if settings.server.access_log:
            self.sinks.append(write_access_line)
        self.tracing = _tracing(span_provider) if settings.server.tracing else None
        if self.tracing:
            self.sinks.append(self.tracing.end)
        self._hosts = HostRule.of(settings, settings.server.host)
        """Which names clients may use for the gateway; None allows all."""
        self._answer = _with_cors(self._answer_directly, settings.server.cors)
        self._hot = {endpoint.path: endpoint for endpoint in ENDPOINTS}
        self._rest = FastAPI(
            title="Thinkmeter",
            version=__version__,
            lifespan=self._lifespan,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,  # a redirect would repeat the client's Host
        )
        console.add_routes(self._rest, self.console, lambda: self.snapshot.settings)
        admin.add_routes(self._rest, self.ledger, self.overview, lambda: self.snapshot)
        api.add_routes(self._rest, self.pipeline, ready=self._readiness, metrics=self._exposition)

    @property
    def snapshot(self) -> Snapshot:
        """What the next request will be served with."""
        return self.pipeline.snapshot

    def backends(self) -> list[tuple[Pool, Backend]]:
        """Every replica of the snapshot in use, with the pool it belongs to."""
        return self.snapshot.backends()

    def run(self, host: str, port: int) -> None:
        """Serve on this address until a signal."""
        settings = self.settings.server.model_copy(update={"host": host, "port": port})
        self._hosts = HostRule.of(self.settings, host)
        server.raise_descriptor_limit()
        server.run(self, settings, self.http_protocol(), drain=self.drain)

    def http_protocol(self) -> type[protocol.HttpProtocol]:
        """uvicorn's protocol under the limits of this gateway."""
        limits = self.settings.limits
        self.connections = server.bounded_connections(limits, self.metrics.refused_connections.inc)
        self.metrics.connections.set_function(self.connections.__len__)
        return protocol.protocol(limits, lambda: self.snapshot.settings.timeouts.idle, self.connections)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        if not self.settings.keys:
            log.warning("no API keys are configured: everybody who can reach this port may use it")
        await self.ledger.start()
        await self.health.start()
        watcher = asyncio.create_task(self._watch(self._path), name="config-watch") if self._path else None
        try:
            yield
        finally:
            if watcher:
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher
            await self.health.stop()
            self.upstream.close()
            await self.ledger.stop()
            if self.tracing:
                self.tracing.close()

    async def read_budgets(self) -> None:
        """Read all windows from Redis for the metrics and the console."""
        await self.overview.refresh(self.snapshot.budgets)

    async def _exposition(self) -> bytes:
        await self.read_budgets()
        return self.metrics.exposition()

    def _readiness(self) -> str:
        if self.draining:
            return "draining"
        return "ready" if self.health.ready else "no healthy backend"

    async def _watch(self, path: Path) -> None:
        refused = self.metrics.reloads.labels("refused").inc
        await reload.watch(path, Snapshot.load, self.reload, refused)

    def drain(self) -> None:
        """Turn `/readyz` to 503, so that balancers send no more requests."""
        self.draining = True

    def reload(self, snapshot: Snapshot) -> None:
        """Serve the next request with another snapshot. Requests under way keep theirs."""
        self.pipeline.snapshot = snapshot.keeping(self.snapshot)
        self.ledger.configure(snapshot.settings)
        self.ledger.start_soon()
        for setting in _READ_AT_START:
            get = attrgetter(setting)
            if get(snapshot.settings) != get(self.settings):
                log.warning("a change of `%s` takes effect at the next start", setting)
        self.metrics.reloads.labels("taken").inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        await self._answer(scope, receive, send)

    async def _answer_directly(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, whatever happens."""
        proxies = self.settings.server.trusted_proxies
        exchange = Exchange(scope, receive, send, self.settings.limits, proxies)
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
        if self._hosts is not None:
            self._hosts.check(exchange.headers)
        if endpoint := self._hot.get(scope["path"]):
            record.route = endpoint.path
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"Use POST on {endpoint.path}")
            if self.tracing:
                self.tracing.begin(exchange.headers, record)
            await self.pipeline.serve(exchange, record, endpoint)
            return

        async def relay(message: Message) -> None:
            await send(exchange.relay(message))

        # the server sends no body in response to HEAD, whatever it is given
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        inner = {**scope, "method": method, "path": scope["path"].rstrip("/") or "/"}
        inner["thinkmeter.exchange"] = exchange
        try:
            await self._rest(inner, receive, relay)
        finally:
            record.route = getattr(inner.get("route"), "path", "other")

    def _finish(self, exchange: Exchange, record: Record) -> None:
        record.status, record.error = exchange.status, exchange.error or record.error
        record.duration = record.elapsed()
        if record.error and record.error.level >= logging.ERROR:
            log.error("request %s: %s (%s)", record.request_id, record.error.message, record.error.detail)
        for sink in self.sinks:
            sink(record)


def _with_cors(answer: ASGIApp, settings: CorsSettings) -> ASGIApp:
    """Let the web pages of these origins call the gateway, and answer their preflights, which have no key."""
    if not settings.origins:
        return answer
    return CORSMiddleware(
        answer,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=["*"],
        max_age=settings.max_age,
    )


def _tracing(span_provider: Callable[[], TracerProvider] | None) -> Tracing:
    from gateway.telemetry.tracing import Tracing, exporting_provider  # noqa: PLC0415 - an optional extra

    return Tracing((span_provider or exporting_provider)())
