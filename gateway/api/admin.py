"""The admin API of the budgets: shows their use, sets limits, adds tokens, clears what was spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from msgspec import Meta, Struct

from gateway.budget.ledger import Ledger
from gateway.budget.limits import Limit
from gateway.budget.overview import BudgetOverview, admin_row
from gateway.config.access import matching_digest
from gateway.errors import BudgetNotFound, BudgetUnavailable, InvalidApiKey
from gateway.http.exchange import Exchange
from gateway.http.headers import bearer
from gateway.openai_api import requests as protocol
from gateway.snapshot import Snapshot
from gateway.store.connection import StoreUnavailable

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

    @app.get("/admin/budgets", summary="Use of all budgets, by holder", tags=["admin"])
    async def budgets(request: Request) -> Response:
        current = snapshot()
        _authorize(current, request)
        return await _answer(ledger, overview, list(current.budgets.limits.values()))

    @app.get("/admin/budgets/{name}", summary="Use of one budget, by holder", tags=["admin"])
    async def budget(name: str, request: Request) -> Response:
        return await _answer(ledger, overview, _named(snapshot(), name, request))

    # `:path`, because the names of budgets and holders may contain slashes
    @app.get("/admin/budgets/{name}/{holder:path}", summary="Use of a budget by one holder", tags=["admin"])
    async def held(name: str, holder: str, request: Request) -> Response:
        return await _answer(ledger, overview, _named(snapshot(), f"{name}/{holder}", request))

    @app.put("/admin/budgets/{name}/{holder:path}", summary="Set another limit", tags=["admin"])
    async def set_cap(name: str, holder: str, request: Request) -> Response:
        limit, change = await _change(snapshot(), name, holder, request)
        async with _Asking():
            await ledger.store.set_cap(limit.window, change.tokens)
        return await _answer(ledger, overview, [limit])

    @app.delete("/admin/budgets/{name}/{holder:path}", summary="Restore the configured limit", tags=["admin"])
    async def clear_cap(name: str, holder: str, request: Request) -> Response:
        limit = _limit(snapshot(), name, holder, request)
        async with _Asking():
            await ledger.store.set_cap(limit.window, None)
        return await _answer(ledger, overview, [limit])

    @app.post(
        "/admin/budgets/{name}/{holder:path}/top-up", summary="Add tokens for one window", tags=["admin"]
    )
    async def top_up(name: str, holder: str, request: Request) -> Response:
        limit, change = await _change(snapshot(), name, holder, request)
        async with _Asking():
            await ledger.store.top_up(limit.window, change.tokens)
        return await _answer(ledger, overview, [limit])

    @app.post("/admin/budgets/{name}/{holder:path}/reset", summary="Clear what was spent", tags=["admin"])
    async def reset(name: str, holder: str, request: Request) -> Response:
        limit = _limit(snapshot(), name, holder, request)
        async with _Asking():
            await ledger.store.reset(limit.window)
        return await _answer(ledger, overview, [limit])


class _Asking:
    """Responds 503 if Redis is unreachable."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, StoreUnavailable):
            raise BudgetUnavailable("Redis is unreachable", retry_after=1, detail=str(error)) from error


def _authorize(snapshot: Snapshot, request: Request) -> None:
    """Check the admin key. Without one in the configuration, every request is refused."""
    expected = snapshot.settings.admin.hash
    exchange: Exchange = request.scope["thinkmeter.exchange"]
    if expected is None:
        raise InvalidApiKey("No admin key is configured: set `admin.key`")
    if matching_digest(bearer(exchange.headers) or "", [expected]) is None:
        raise InvalidApiKey("This is not the admin key")


def _named(snapshot: Snapshot, path: str, request: Request, *, holder: bool = False) -> list[Limit]:
    """The limits that a path names: `BUDGET/HOLDER` is one, `BUDGET` is all of it unless `holder` is set."""
    _authorize(snapshot, request)
    limits = snapshot.budgets.limits.items()
    found = [
        limit for (name, who), limit in limits if path == f"{name}/{who}" or (path == name and not holder)
    ]
    if not found:
        raise BudgetNotFound(f"There is no budget or holder {path[:200]!r}")
    return found


def _limit(snapshot: Snapshot, name: str, holder: str, request: Request) -> Limit:
    return _named(snapshot, f"{name}/{holder}", request, holder=True)[0]


async def _change(snapshot: Snapshot, name: str, holder: str, request: Request) -> tuple[Limit, Change]:
    limit = _limit(snapshot, name, holder, request)
    exchange: Exchange = request.scope["thinkmeter.exchange"]
    return limit, protocol.decode_as(Change, await exchange.body(_LARGEST))


async def _answer(ledger: Ledger, overview: BudgetOverview, limits: list[Limit]) -> Response:
    async with _Asking():
        views = await overview.read(limits)
    body: dict[str, Any] = {
        "budgets": [admin_row(view) for view in views],
        "redis": {"up": ledger.up},
    }
    return Response(protocol.encode(body), media_type="application/json")
