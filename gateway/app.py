"""The composition root: builds the gateway, and serves every request within one error boundary."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from gateway.api import admin, console, feedback, heads
from gateway.api import routes as api
from gateway.api.cors import CorsRule
from gateway.budget.ledger import open_budget
from gateway.budget.overview import BudgetOverview
from gateway.config import watch as reload
from gateway.config.changes import describe_changes, forbidden_changes, late_changes
from gateway.config.loader import ConfigError, reachable_example_keys
from gateway.config.settings import Settings
from gateway.console.state import Console
from gateway.errors import GatewayError, InternalError, MethodNotAllowed
from gateway.evidence.opening import evidence_of, shadows_of
from gateway.http import server
from gateway.http.asgi import AsgiExchange
from gateway.http.browsers import HostRule
from gateway.http.exchange import Exchange
from gateway.http.paths import check_escapes, sent_path
from gateway.http.protocol import HttpProtocol
from gateway.http.terms import HttpMemory, HttpTerms
from gateway.openai_api.endpoints import ENDPOINTS, Endpoint
from gateway.pipeline.serve import Pipeline
from gateway.snapshot import Snapshot
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.finished import FinishedRecords
from gateway.telemetry.log_writer import StandardStreams
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.open_tracing import tracing_of
from gateway.telemetry.record import Record
from gateway.telemetry.scrapes import Scrapes
from gateway.upstream.dispatch import Upstream
from gateway.upstream.health import HealthChecks
from gateway.upstream.pool import Backend, Pool

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("thinkmeter")

_FLUSH_SECONDS = 1.0
"""How long the last log lines may take to be written. A reader that stalls must not stop the shutdown."""


class Gateway:
    """Builds everything that lives as long as the process, and connects it.

    The hot routes are served from the connection itself, as ASGI and FastAPI's router cost more than all else
    that the gateway does with HTTP. To uvicorn it is an ASGI application that only starts and stops.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        path: Path | None = None,
        *,
        streams: StandardStreams | None = None,
        span_provider: Callable[[], TracerProvider] | None = None,
        follow: Callable[[], Coroutine[None, None, None]] | None = None,
    ) -> None:
        """path: the configuration file to watch for changes, if any. follow: brings changes in its place.

        streams: where the access log goes; default the standard output of the process.
        span_provider: makes the provider of spans under `server.tracing`, in place of one that exports them.
        """
        self.settings = settings = snapshot.settings
        """The settings at the start of the process."""
        self.draining = False
        self._follow = follow or (partial(self._watch, path) if path else None)
        self._host = settings.server.host
        self.upstream = Upstream()
        self.streams = streams or StandardStreams.of_process()
        self.finished = FinishedRecords()
        self.metrics = Metrics(self.backends, lambda: self.snapshot.evidence, self.streams.dropped)
        self.metrics.note_finished = self.finished.flush
        self.ledger = open_budget(settings, self.metrics.budget)
        self.overview = BudgetOverview(self.ledger.store, self.ledger.pricing, self.metrics.budget)
        self.pipeline = Pipeline(snapshot, self.upstream, self.ledger)
        self.scrapes = Scrapes(
            self.metrics, self._read_budgets, lambda: self.snapshot.settings.metrics.max_age
        )
        self.health = HealthChecks(self.upstream, self.backends)
        self.evidence = evidence_of(settings.evidence, self.finished, self.metrics, self)
        self.pipeline.keeps_evidence = self.evidence is not None
        self.pipeline.shadows = shadows_of(self.evidence, self.upstream, self.ledger, self.metrics, self)
        self.console = Console(
            lambda: self.snapshot,
            draining=lambda: self.draining,
            feedback=settings.evidence is not None,
            budgets=self.overview.console_rows,
            read_budgets=self.scrapes.read_budgets,
            note_finished=self.finished.flush,
        )
        self.finished.sinks += [self.metrics.count, self.console.remember]
        if settings.server.access_log:
            self.finished.sinks.append(AccessLog(self.streams.output.put).write)
        self.tracing = tracing_of(span_provider) if settings.server.tracing else None
        if self.tracing:
            self.finished.at_once.append(self.tracing.end)
        self._memory = HttpMemory(settings.limits)
        self._hosts = HostRule.of(settings, settings.server.host)
        """Which names clients may use for the gateway; None allows all."""
        self._cors = CorsRule.of(settings.server.cors)
        self._hot = {endpoint.path.encode(): endpoint for endpoint in ENDPOINTS}
        self._rest = self._add_routes(api.application(self._lifespan))

    def _add_routes(self, app: FastAPI) -> FastAPI:
        quality = self.evidence.quality.show if (kept := self.evidence) else None
        console.add_routes(app, self.console, lambda: self.snapshot.settings, quality)
        admin.add_routes(app, self.ledger, self.overview, lambda: self.snapshot)
        feedback.add_routes(app, kept.desk if kept else None, lambda: self.snapshot)
        heads.add_routes(app, kept.heads if kept else None, lambda: self.snapshot)
        api.add_routes(app, self.pipeline, ready=self._readiness, metrics=self.scrapes.answer)
        return app

    @property
    def snapshot(self) -> Snapshot:
        """What the next request will be served with."""
        return self.pipeline.snapshot

    def backends(self) -> list[tuple[Pool, Backend]]:
        """Every replica of the snapshot in use, with the pool it belongs to."""
        return self.snapshot.backends()

    def run(self, host: str, port: int, sockets: list[socket] | None = None) -> None:
        """Serve on this address, or on these sockets, until a signal."""
        self._host = host
        self._hosts = HostRule.of(self.settings, host)
        settings = self.settings.server.model_copy(update={"host": host, "port": port})
        server.raise_descriptor_limit()
        stopped = partial(self.flush, _FLUSH_SECONDS)
        server.run(self, settings, self.http_protocol(), drain=self.drain, stopped=stopped, sockets=sockets)

    def flush(self, seconds: float) -> None:
        """Note what has finished, and give its log lines this long to be written."""
        self.finished.flush()
        self.streams.flush(seconds)

    def http_protocol(self) -> Callable[..., HttpProtocol]:
        """Makes the connections to clients for uvicorn, under the limits of this gateway."""
        limits = self.settings.limits
        self.connections = server.bounded_connections(limits, self.metrics.refused_connections.inc)
        self.metrics.connections.set_function(self.connections.__len__)
        terms = HttpTerms(limits, self._memory, self.settings.server.trusted_proxies)
        stall = lambda: self.snapshot.settings.timeouts.idle  # noqa: E731
        return partial(HttpProtocol, self.answer, terms, self.connections, stall)

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        _warn_if_open(self.settings)
        await self.ledger.start()
        await self.health.start()
        if self.evidence:
            self.evidence.start(self.pipeline)
        watcher = asyncio.create_task(self._follow(), name="config-watch") if self._follow else None
        try:
            yield
        finally:
            if watcher:
                watcher.cancel()
                with suppress(asyncio.CancelledError):
                    await watcher
            await self.health.stop()
            await self.pipeline.stop()
            self.upstream.close()
            await self.ledger.stop()
            if self.evidence:
                await self.evidence.stop()
            if self.tracing:
                self.tracing.close()

    async def _read_budgets(self) -> None:
        await self.overview.refresh(self.snapshot.budgets, self.snapshot.settings.metrics.holders)

    def _readiness(self) -> api.Readiness:
        if self.draining:
            return "draining", []
        return ("ready", []) if self.health.ready else ("no healthy backend", self.health.causes())

    async def _watch(self, path: Path) -> None:
        refused = self.metrics.reloads.labels("refused").inc
        in_use = self.snapshot.router.versions["config"]
        await reload.watch(path, self._load, self.reload, refused, in_use=in_use)

    def _load(self, raw: bytes) -> Snapshot:
        snapshot = Snapshot.read(raw, self.snapshot.promoted)
        problems = reachable_example_keys(snapshot.settings, lambda: raw, self._host)
        problems += forbidden_changes(self.snapshot.settings, snapshot.settings)
        if problems:
            raise ConfigError(problems)
        return snapshot

    def drain(self) -> None:
        """Turn `/readyz` to 503, so that balancers send no more requests."""
        self.draining = True

    def reload(self, snapshot: Snapshot, *, counted: bool = True) -> str:
        """Serve the next request with another snapshot. Requests under way keep theirs.

        Returns what changes. Raises: ConfigError, if only a restart may change that.
        """
        old = self.snapshot
        if problems := forbidden_changes(old.settings, snapshot.settings):
            raise ConfigError(problems)
        self.pipeline.snapshot = snapshot.keeping(self.snapshot)
        self.ledger.configure(snapshot.settings)
        self.ledger.start_soon()
        for setting in late_changes(self.settings, snapshot.settings):
            log.warning("a change of `%s` takes effect at the next start", setting)
        _warn_if_open(snapshot.settings)
        self.metrics.reloads.labels("taken").inc(counted)
        digests = (old.router.versions["config"], snapshot.router.versions["config"])
        return f"{describe_changes(old.settings, snapshot.settings)} ({' → '.join(digests)})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and stop, as uvicorn calls it."""
        await self._rest(scope, receive, send)

    async def answer(self, exchange: Exchange) -> None:
        """Serve one HTTP request, whatever happens."""
        if self._cors is not None:
            if preflight := self._cors.preflight(exchange.head.method, exchange.headers):
                await exchange.respond(*preflight)
                return
            exchange.granted = self._cors.grants(exchange.headers)
        record = Record(exchange.request_id)
        self.metrics.in_flight.inc()
        try:
            endpoint = self._endpoint(exchange, record)
            if endpoint is not None:
                await self.pipeline.serve(exchange, record, endpoint)
            else:
                await self._serve_rest(exchange, record)
        except GatewayError as error:
            await exchange.fail(error)
        except asyncio.CancelledError:
            await exchange.fail(exchange.cancellation())
        except Exception as error:  # noqa: BLE001 - logged without its text, which may quote a prompt
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("request %s failed: %s\n%s", record.request_id, type(error).__name__, trace)  # noqa: TRY400
            await exchange.fail(InternalError("Internal error", detail=type(error).__name__))
        finally:
            exchange.close()
            self.metrics.in_flight.dec()
            self.finished.add(record, exchange.status, exchange.error, exchange.peer_address)

    def _endpoint(self, exchange: Exchange, record: Record) -> Endpoint | None:
        """The hot route to serve; None if it is another one, or if only its methods are asked for.

        Raises: HostNotAllowed, MethodNotAllowed, ClientClosed.
        """
        if self._hosts is not None:
            self._hosts.check(exchange.headers)
        head = exchange.head
        if not (endpoint := self._hot.get(head.path) or self._hot.get(sent_path(head.path).encode())):
            return None
        record.route = endpoint.path
        if head.method == "OPTIONS":
            return None
        if head.method != "POST":
            raise MethodNotAllowed(f"Use POST on {endpoint.path}", allow="OPTIONS, POST")
        if self.tracing:
            self.tracing.begin(exchange.headers, record)
        exchange.cancel_on_disconnect()
        return endpoint

    async def _serve_rest(self, exchange: Exchange, record: Record) -> None:
        """Serve a request to one of FastAPI's routes, or the methods of a hot one."""
        path = sent_path(exchange.head.path)
        if path.encode() in self._hot:
            await exchange.tell_methods("OPTIONS, POST")
            return
        check_escapes(exchange.head.path)
        inner = AsgiExchange(exchange, path)
        scope = inner.scope | {"thinkmeter.exchange": exchange, "thinkmeter.record": record}
        try:
            await self._rest(scope, inner.receive, inner.send)
        finally:
            del scope["thinkmeter.exchange"]  # the exchange's task holds the scope
            record.route = getattr(scope.get("route"), "path", "other")


def _warn_if_open(settings: Settings) -> None:
    if not settings.keys:
        log.warning("no API keys are configured: everybody who can reach this port may use it")
