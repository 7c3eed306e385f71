"""The HTTP routes that FastAPI serves: models, dry run, health, metrics and the OpenAPI description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

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
from gateway.openai_api import requests as protocol
from gateway.openai_api.endpoints import CHAT
from gateway.pipeline import Pipeline, read_request
from gateway.routing.call import Target
from gateway.routing.router import may_use
from gateway.snapshot import Snapshot
from gateway.telemetry.record import Record


def json(body: object, status: int = 200) -> Response:
    return Response(protocol.encode(body), status, media_type="application/json")


def add_routes(
    app: FastAPI,
    pipeline: Pipeline,
    *,
    ready: Callable[[], str],
    metrics: Callable[[], Awaitable[bytes]],
) -> None:
    """Define the routes, and report errors in OpenAI's shape.

    `ready` returns "ready", or why the gateway cannot take requests. `metrics` returns the metrics as text.
    """

    @app.get("/healthz", summary="Is the process alive?", tags=["operations"])
    async def healthz() -> Response:
        return json({"status": "ok"})

    @app.get("/readyz", summary="Can it take requests?", tags=["operations"])
    async def readyz() -> Response:
        status = ready()
        return json({"status": status}, 200 if status == "ready" else 503)

    @app.get("/metrics", summary="Prometheus metrics", tags=["operations"])
    async def exposition(request: Request) -> Response:
        expected = pipeline.snapshot.settings.metrics.hash
        secret = bearer(_exchange(request).headers) or ""
        if expected and key_digest(secret) != expected:
            text = "/metrics needs its key: send it as `Authorization: Bearer KEY`"
            raise InvalidApiKey(text, tried=fingerprint(secret) if secret else None)
        return Response(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", summary="The models and pinned tiers that this key may use", tags=["openai"])
    async def models(request: Request) -> Response:
        snapshot = pipeline.snapshot
        key = _identify(request, snapshot)
        targets = snapshot.router.targets
        cards = [_card(snapshot, name, target) for name, target in targets.items() if may_use(target, key)]
        return json({"object": "list", "data": cards})

    @app.get("/v1/models/{name:path}", summary="One model", tags=["openai"])
    async def model(name: str, request: Request) -> Response:
        snapshot = pipeline.snapshot
        target = snapshot.router.target(name, _identify(request, snapshot))
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
        exchange, snapshot = _exchange(request), pipeline.snapshot
        key = _identify(request, snapshot)
        body, chat = await read_request(exchange, CHAT)
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
        path = request.scope["path"][:200]
        ours: dict[int, GatewayError] = {
            404: RouteNotFound(f"There is no route {path}"),
            405: MethodNotAllowed(
                f"{request.method[:20]} is not allowed on {path}",
                allow=(error.headers or {}).get("Allow", ""),
            ),
        }
        found = ours.get(error.status_code) or InvalidRequest("The request cannot be read")
        return _failure(request, found)

    @app.exception_handler(Exception)
    async def own_fault(request: Request, _: Exception) -> Response:
        return _failure(request, InternalError("Internal error"))


def _exchange(request: Request) -> Exchange:
    exchange: Exchange = request.scope["thinkmeter.exchange"]
    return exchange


def _identify(request: Request, snapshot: Snapshot) -> Key | None:
    """The client's key, noted for the access log. Raises: InvalidApiKey."""
    record: Record = request.scope["thinkmeter.record"]
    key = snapshot.router.identify(_exchange(request).headers)
    record.key = key.name if key else None
    return key


def _failure(request: Request, error: GatewayError) -> Response:
    _exchange(request).error = error.detached()
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
