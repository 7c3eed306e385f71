"""The routes of the console: its page, the files of the page, and its stream of events."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse

from gateway.config.settings import Settings
from gateway.console.access import authorize
from gateway.console.state import Console
from gateway.errors import RouteNotFound
from gateway.http.exchange import Exchange
from gateway.openai_api.requests import encode
from gateway.telemetry.access_log import audit
from gateway.telemetry.record import Record

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


def add_routes(
    app: FastAPI,
    console: Console,
    settings: Callable[[], Settings],
    quality: Callable[[], Awaitable[dict[str, Any]]] | None = None,
) -> None:
    """Define the routes. The page contains no data and needs no key; what it shows needs one.

    quality: returns what is known about the answers; None without a store of evidence.
    """
    pages = {
        entry.name: entry.read_bytes()
        for entry in files("gateway.console").joinpath("web").iterdir()
        if not entry.name.startswith(".")
    }

    def page(name: str) -> Response:
        if not settings().serves_console or name not in pages:
            raise RouteNotFound(f"There is no route /console/{name[:100]}")
        kind = _TYPES.get(name[name.rfind(".") :]) or mimetypes.guess_type(name)[0]
        return Response(pages[name], media_type=kind, headers=_HEADERS)

    @app.get("/console", summary="The console", tags=["operations"])
    async def index() -> Response:
        return page("index.html")

    @app.get("/console/events", summary="The data of the console, as server-sent events", tags=["operations"])
    async def events(request: Request) -> Response:
        exchange: Exchange = request.scope["thinkmeter.exchange"]
        record: Record = request.scope["thinkmeter.record"]
        record.key = authorize(settings(), exchange.headers)
        if record.key:  # now, as the access log has no line before the console is closed
            audit.info("%s opened the console with the key of the %s", exchange.peer_address, record.key)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if exchange.head.method == "HEAD":  # the stream would never end
            return Response(media_type="text/event-stream", headers=headers)
        return StreamingResponse(console.events(), media_type="text/event-stream", headers=headers)

    @app.get("/console/quality", summary="What the console shows about the answers", tags=["operations"])
    async def answers(request: Request) -> Response:
        record: Record = request.scope["thinkmeter.record"]
        record.key = authorize(settings(), request.scope["thinkmeter.exchange"].headers)
        found = await quality() if quality else {"state": "off"}
        return Response(encode(found), media_type="application/json", headers={"Cache-Control": "no-store"})

    @app.get("/console/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        return page(name)
