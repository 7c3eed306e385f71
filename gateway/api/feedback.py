"""The route that takes feedback about answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response

from gateway.api import openapi
from gateway.api.routes import exchange_of, identify, json
from gateway.evidence.errors import EvidenceOff
from gateway.evidence.feedback import Feedback, Rater, Ruling, read_feedback
from gateway.snapshot import Snapshot

if TYPE_CHECKING:
    from gateway.evidence.feedback_desk import FeedbackDesk  # it imports SQLAlchemy

_LARGEST = 262_144  # bytes of a request: what is parsed in about a millisecond


def add_routes(app: FastAPI, desk: FeedbackDesk | None, snapshot: Callable[[], Snapshot]) -> None:
    """Define the route. desk: None without a store. `snapshot` returns the snapshot in use."""

    @app.post(
        "/v1/feedback",
        summary="Say whether an answer was right",
        tags=["thinkmeter"],
        status_code=202,
        **openapi.body_of(openapi.FEEDBACK),
    )
    async def feedback(request: Request) -> Response:
        current = snapshot()
        key = identify(request, current)
        if desk is None:
            raise EvidenceOff("This gateway keeps no evidence: configure `evidence: {}`")
        items, listed = read_feedback(await exchange_of(request).body(_LARGEST))
        rulings = await desk.take(
            items, Rater(key.name if key else None, everybody=not current.settings.keys)
        )
        errors = [ruling.error for ruling in rulings if ruling.error]
        if errors and (not listed or all(ruling.outcome == "unavailable" for ruling in rulings)):
            raise errors[0]
        told = [_told(item, ruling) for item, ruling in zip(items, rulings, strict=True)]
        return json({"object": "list", "data": told} if listed else told[0], 207 if errors else 202)


def _told(item: Feedback, ruling: Ruling) -> dict[str, Any]:
    """What a client is told about an item."""
    error = ruling.error
    about = {"request_id": item.request_id} if item.decision_id is None else {"decision_id": item.decision_id}
    told = {"object": "feedback", **about, "source": item.source, "outcome": ruling.outcome}
    return told | ({"status": error.status} | orjson.loads(error.body()) if error else {"status": 202})
