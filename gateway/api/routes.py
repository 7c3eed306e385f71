"""The HTTP routes that FastAPI serves: models, dry run, health, metrics and the OpenAPI description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Lifespan, Scope

from gateway import __version__
from gateway.api import docs, openapi
from gateway.config.access import Key, fingerprint, key_digest
from gateway.errors import (
    GatewayError,
    InternalError,
    InvalidApiKey,
    InvalidRequest,
    MethodNotAllowed,
    RouteNotFound,
)
from gateway.http.exchange import Exchange
from gateway.http.headers import bearer
from gateway.http.paths import no_route
from gateway.openai_api import requests as protocol
from gateway.openai_api.endpoints import CHAT, ENDPOINTS
from gateway.pipeline.serve import Pipeline, read_request
from gateway.routing.call import Target
from gateway.routing.router import may_use
from gateway.snapshot import Snapshot
from gateway.telemetry.record import Record

Readiness = tuple[str, list[str]]
"""`ready`, or why the gateway cannot take requests; and what is wrong with its replicas, without names."""
_METHODS = "DELETE, GET, HEAD, OPTIONS, POST, PUT"
_CLIENT_PATHS = (*(endpoint.path for endpoint in ENDPOINTS), "/v1/models", "/v1/route", "/v1/feedback")
"""What a client that asks for an unknown path may have meant."""


def application(lifespan: Lifespan[Any]) -> FastAPI:
    """What serves the routes, without any yet."""
    return FastAPI(
        title="Thinkmeter",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the client's Host
    )


def json(body: object, status: int = 200) -> Response:
    return Response(protocol.encode(body), status, media_type="application/json")


def add_routes(
    app: FastAPI,
    pipeline: Pipeline,
    *,
    ready: Callable[[], Readiness],
    metrics: Callable[[], Awaitable[bytes]],
) -> None:
    """Define the routes, and report errors in OpenAI's shape.

    `metrics` returns the metrics as text.
    """

    @app.get("/healthz", summary="Is the process alive?", tags=["operations"])
    async def healthz() -> Response:
        return json({"status": "ok"})

    @app.get("/readyz", summary="Can it take requests?", tags=["operations"])
    @app.get("/health", summary="The same, at the path of vLLM", tags=["operations"])
    @app.get("/ping", summary="The same, at the path of SageMaker", tags=["operations"])
    async def readyz() -> Response:
        status, causes = ready()
        told = {"causes": causes} if causes else {}
        return json({"status": status} | told, 200 if status == "ready" else 503)

    @app.get("/metrics", summary="Prometheus metrics", tags=["operations"])
    async def exposition(request: Request) -> Response:
        expected = pipeline.snapshot.settings.metrics.hash
        secret = bearer(exchange_of(request).headers) or ""
        if expected and key_digest(secret) != expected:
            text = "/metrics needs its key: send it as `Authorization: Bearer KEY`"
            raise InvalidApiKey(text, tried=fingerprint(secret) if secret else None)
        return Response(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", summary="The models and pinned tiers that this key may use", tags=["openai"])
    async def models(request: Request) -> Response:
        snapshot = pipeline.snapshot
        key = identify(request, snapshot)
        targets = snapshot.router.targets
        cards = [_card(snapshot, name, it) for name, it in targets.items() if it.listed and may_use(it, key)]
        return json({"object": "list", "data": cards})

    @app.get("/v1/models/{name:path}", summary="One model", tags=["openai"])
    async def model(name: str, request: Request) -> Response:
        snapshot = pipeline.snapshot
        target = snapshot.router.target(name, identify(request, snapshot))
        return json(_card(snapshot, name, target))

    _add_dry_run(app, pipeline)
    _add_error_handlers(app)
    docs.add_routes(app, app.openapi)
    app.openapi_schema = openapi.describe(app)


def _add_dry_run(app: FastAPI, pipeline: Pipeline) -> None:
    @app.post(
        "/v1/route",
        summary="Dry run: the decision for a chat request",
        tags=["thinkmeter"],
        **openapi.request_body(CHAT.path),
    )
    async def route(request: Request) -> Response:
        exchange, snapshot = exchange_of(request), pipeline.snapshot
        key = identify(request, snapshot)
        chat, body = await read_request(exchange, CHAT)
        plan = await pipeline.plan(snapshot.call(CHAT, key, exchange.headers, chat, body), snapshot)
        fields = plan.fields()
        changed = {name: value for name, value in fields.items() if value != chat.fields.get(name)}
        removed = sorted(set(chat.fields) - set(fields))
        return json({"decision": plan.decision, "request": {"set": changed, "removed": removed}})


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(GatewayError)
    async def gateway_error(request: Request, error: GatewayError) -> Response:
        return _failure(request, error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]
        if error.status_code == 404 and path != "*":
            return _failure(request, RouteNotFound(no_route(path, _CLIENT_PATHS)))
        allow = _METHODS if path == "*" else allowed_methods(app, request.scope)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": allow})
        if error.status_code == 405:
            text = f"{request.method[:20]} is not allowed on {path[:200]}, only {allow}"
            return _failure(request, MethodNotAllowed(text, allow=allow))
        return _failure(request, InvalidRequest("The request cannot be read"))

    @app.exception_handler(Exception)
    async def own_fault(request: Request, _: Exception) -> Response:
        return _failure(request, InternalError("Internal error"))


def allowed_methods(app: FastAPI, scope: Scope) -> str:
    """The methods of all routes that the path has: Starlette's own header names those of the first alone."""
    found = {"OPTIONS"}
    for route in app.routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))


def exchange_of(request: Request) -> Exchange:
    """The exchange behind a request of FastAPI."""
    exchange: Exchange = request.scope["thinkmeter.exchange"]
    return exchange


def identify(request: Request, snapshot: Snapshot) -> Key | None:
    """The client's key, noted for the access log. Raises: InvalidApiKey."""
    record: Record = request.scope["thinkmeter.record"]
    key = snapshot.router.identify(exchange_of(request).headers)
    record.key = key.name if key else None
    return key


def _failure(request: Request, error: GatewayError) -> Response:
    exchange_of(request).error = error.detached()
    response = Response(error.body(), error.status)
    response.raw_headers.extend(error.headers())
    return response


def _card(snapshot: Snapshot, name: str, target: Target) -> dict[str, Any]:
    """A model in OpenAI's shape, with its tiers."""
    card: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "thinkmeter"}
    if context := snapshot.pools[target.name].context:
        card["max_model_len"] = context
    tiers = {
        n: {"thinking": t.thinking, "answer": t.answer}
        for n, t in zip(target.ladder.names, target.ladder.tiers, strict=True)
    }
    card["thinkmeter"] = {"tier": target.pin or "adaptive", "tiers": tiers}
    return card
