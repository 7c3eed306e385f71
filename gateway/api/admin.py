"""The admin API of the budgets: shows their use, sets limits, adds tokens, clears what was spent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Request, Response
from msgspec import Meta, Struct

from gateway.budget.ledger import Ledger
from gateway.budget.limits import Limit
from gateway.budget.observer import WindowView
from gateway.budget.overview import BudgetOverview, admin_row
from gateway.config.access import fingerprint, key_digest
from gateway.errors import BudgetNotFound, BudgetUnavailable, InvalidApiKey
from gateway.http.exchange import Exchange
from gateway.http.headers import bearer
from gateway.openai_api import requests as protocol
from gateway.snapshot import Snapshot
from gateway.store.connection import StoreUnavailable
from gateway.telemetry.access_log import audit
from gateway.telemetry.record import BudgetChange, BudgetFigures, Record
from gateway.telemetry.shared_copy import SharedCopy

_Act = Callable[[], Awaitable[None]]
Amount = Annotated[int, Meta(ge=1, le=10**13)]


_LARGEST = 65_536  # bytes of a change


class Change(Struct, forbid_unknown_fields=True):
    """The body of a request that changes a budget."""

    tokens: Amount
    """The new limit, or the tokens to add."""


def add_routes(
    app: FastAPI, ledger: Ledger, overview: BudgetOverview, snapshot: Callable[[], Snapshot]
) -> None:
    """Define the routes under /admin. `snapshot` returns the snapshot in use."""
    store = ledger.store

    async def carry_out(
        request: Request, limit: Limit, action: str, act: _Act, tokens: int | None = None
    ) -> Response:
        change = BudgetChange(action, limit.budget.name, limit.holder, tokens)
        return await _carry_out(ledger, overview, request, limit, change=change, act=act)

    async def all_rows() -> list[bytes]:
        return await _rows(overview, list(snapshot().budgets.limits.values()))

    shared = SharedCopy(all_rows, lambda: 0.0)  # there may be tens of thousands

    @app.get("/admin/budgets", summary="Use of all budgets, by holder", tags=["admin"])
    async def budgets(request: Request) -> Response:
        authorize_admin(snapshot(), request)
        async with _Asking():
            return _response(ledger, await shared.get())

    @app.get("/admin/budgets/{name}", summary="Use of one budget, by holder", tags=["admin"])
    async def budget(name: str, request: Request) -> Response:
        return await _answer(ledger, overview, _named(snapshot(), name, request))

    # `:path`, because the names of budgets and holders may contain slashes
    @app.get("/admin/budgets/{name}/{holder:path}", summary="Use of a budget by one holder", tags=["admin"])
    async def held(name: str, holder: str, request: Request) -> Response:
        return await _answer(ledger, overview, _named(snapshot(), f"{name}/{holder}", request))

    @app.put("/admin/budgets/{name}/{holder:path}", summary="Set another limit", tags=["admin"])
    async def set_cap(name: str, holder: str, request: Request) -> Response:
        limit, tokens = await _tokens(snapshot(), name, holder, request)
        return await carry_out(
            request, limit, "set_limit", partial(store.set_cap, limit.window, tokens), tokens
        )

    @app.delete("/admin/budgets/{name}/{holder:path}", summary="Restore the configured limit", tags=["admin"])
    async def clear_cap(name: str, holder: str, request: Request) -> Response:
        limit = _limit(snapshot(), name, holder, request)
        return await carry_out(request, limit, "restore_limit", partial(store.set_cap, limit.window, None))

    @app.post(
        "/admin/budgets/{name}/{holder:path}/top-up", summary="Add tokens for one window", tags=["admin"]
    )
    async def top_up(name: str, holder: str, request: Request) -> Response:
        limit, tokens = await _tokens(snapshot(), name, holder, request)
        act = partial(store.top_up, limit.window, tokens)
        return await carry_out(request, limit, "top_up", act, tokens)

    @app.post("/admin/budgets/{name}/{holder:path}/reset", summary="Clear what was spent", tags=["admin"])
    async def reset(name: str, holder: str, request: Request) -> Response:
        limit = _limit(snapshot(), name, holder, request)
        return await carry_out(request, limit, "reset", partial(store.reset, limit.window))


async def _carry_out(
    ledger: Ledger,
    overview: BudgetOverview,
    request: Request,
    limit: Limit,
    *,
    change: BudgetChange,
    act: _Act,
) -> Response:
    """Change a window, and note what it was before and what it is now."""
    record: Record = request.scope["thinkmeter.record"]
    record.change = change
    try:
        async with _Asking():
            (view,) = await overview.read([limit])
            record.change = change = replace(change, before=_state(view))
            await act()
            (view,) = await overview.read([limit])
            record.change = change = replace(change, after=_state(view))
    finally:
        peer = request.scope["thinkmeter.exchange"].peer_address
        audit.info("admin at %s, request %s: %s", peer, record.request_id, change)
    return _response(ledger, [protocol.encode(admin_row(view))])


def _state(view: WindowView) -> BudgetFigures:
    return BudgetFigures(view.cap, view.settled)


class _Asking:
    """Responds 503 if Redis is unreachable."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, StoreUnavailable):
            raise BudgetUnavailable("Redis is unreachable", retry_after=1, detail=str(error)) from error


def authorize_admin(snapshot: Snapshot, request: Request) -> None:
    """Check the admin key. Without one in the configuration, every request is refused."""
    expected = snapshot.settings.admin.hash
    exchange: Exchange = request.scope["thinkmeter.exchange"]
    if expected is None:
        raise InvalidApiKey("No admin key is configured: set `admin.key`")
    secret = bearer(exchange.headers)
    if not secret:
        raise InvalidApiKey("No admin key was given: send it as `Authorization: Bearer KEY`")
    if key_digest(secret) != expected:
        raise InvalidApiKey("This is not the admin key", tried=fingerprint(secret))
    record: Record = request.scope["thinkmeter.record"]
    record.key = "admin"


def _named(snapshot: Snapshot, path: str, request: Request, *, holder: bool = False) -> list[Limit]:
    """The limits that a path names: `BUDGET/HOLDER` is one, `BUDGET` is all of it unless `holder` is set."""
    authorize_admin(snapshot, request)
    limits = snapshot.budgets.limits.items()
    found = [
        limit for (name, who), limit in limits if path == f"{name}/{who}" or (path == name and not holder)
    ]
    if not found:
        raise BudgetNotFound(f"There is no budget or holder {path[:200]!r}")
    return found


def _limit(snapshot: Snapshot, name: str, holder: str, request: Request) -> Limit:
    return _named(snapshot, f"{name}/{holder}", request, holder=True)[0]


async def _tokens(snapshot: Snapshot, name: str, holder: str, request: Request) -> tuple[Limit, int]:
    """The limit that the path names, and the tokens in the body."""
    limit = _limit(snapshot, name, holder, request)
    exchange: Exchange = request.scope["thinkmeter.exchange"]
    return limit, protocol.decode_as(Change, await exchange.body(_LARGEST)).tokens


async def _answer(ledger: Ledger, overview: BudgetOverview, limits: list[Limit]) -> Response:
    async with _Asking():
        return _response(ledger, await _rows(overview, limits))


async def _rows(overview: BudgetOverview, limits: list[Limit]) -> list[bytes]:
    """The windows in JSON, encoded as they are read: all at once would delay requests."""
    return [protocol.encode(admin_row(view)) async for views in overview.slices(limits) for view in views]


def _response(ledger: Ledger, rows: list[bytes]) -> Response:
    body = b'{"budgets":[%b],"redis":%b}' % (b",".join(rows), protocol.encode({"up": ledger.up}))
    return Response(body, media_type="application/json")
