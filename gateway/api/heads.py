"""The admin API of the heads in the store: shows, promotes and rolls them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, Request, Response
from msgspec import Meta, Struct

from gateway.api.admin import authorize_admin
from gateway.api.routes import exchange_of, json
from gateway.evidence.errors import EvidenceOff
from gateway.openai_api import requests as protocol
from gateway.snapshot import Snapshot
from gateway.telemetry.access_log import audit

if TYPE_CHECKING:
    from gateway.evidence.heads.desk import HeadDesk  # it imports SQLAlchemy
    from gateway.evidence.rows import PromotionRow

_LARGEST = 65_536  # bytes of a request


class HeadChange(Struct, forbid_unknown_fields=True):
    """The body of a request that promotes a head or rolls one back."""

    why: Annotated[str, Meta(max_length=1_000)] = ""
    """The reason, for the log of promotions."""
    anyway: bool = False
    """Promote whatever the gate says."""


def add_routes(app: FastAPI, desk: HeadDesk | None, snapshot: Callable[[], Snapshot]) -> None:
    """Define the routes under /admin/heads. desk: None without a store. `snapshot`: the one in use."""

    def admitted(request: Request) -> HeadDesk:
        authorize_admin(snapshot(), request)
        if desk is None:
            raise EvidenceOff("This gateway has no store for heads: configure `evidence: {}`")
        return desk

    async def change_of(request: Request) -> HeadChange:
        body = await exchange_of(request).body(_LARGEST)
        return protocol.decode_as(HeadChange, body) if body else HeadChange()

    def told(request: Request, line: PromotionRow) -> Response:
        names = [head or "the head of the configuration" for head in (line.previous, line.head)]
        exchange = exchange_of(request)
        audit.info(
            "admin at %s, request %s: %s, %s",
            *(exchange.peer_address, exchange.request_id, line.action, " → ".join(names)),
        )
        return json({"at": line.at, "action": line.action, "head": line.head, "previous": line.previous})

    @app.get("/admin/heads", summary="The heads in the store, and who promoted which", tags=["admin"])
    async def heads(request: Request) -> Response:
        return json({"in_use": snapshot().router.versions["head"]} | await admitted(request).show())

    @app.post("/admin/heads/{version}/promote", summary="Let a head decide", tags=["admin"])
    async def promote(version: str, request: Request) -> Response:
        at, change = admitted(request), await change_of(request)
        settings = snapshot().settings
        return told(request, await at.promote(version, settings, why=change.why, anyway=change.anyway))

    @app.post("/admin/heads/rollback", summary="Let the head before decide again", tags=["admin"])
    async def rollback(request: Request) -> Response:
        at, change = admitted(request), await change_of(request)
        return told(request, await at.roll_back(why=change.why))
