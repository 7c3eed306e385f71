"""A gateway that asks requests again, and what became of them."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import yaml

from gateway.config.loader import parse
from gateway.evidence.shadows.drawing import shadow_limit
from gateway.snapshot import Snapshot
from tests.fakes.backend import Backend
from tests.http.test_metrics import scrape
from tests.serving import Running

SHADOW = {"share": 1, "against": "long", "budget": {"tokens": 1_000_000, "window": "1h"}}
CHAT = "/v1/chat/completions"


def rows(sections: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs in the store of a gateway that has stopped."""
    with sqlite3.connect(sections["evidence"]["file"]) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM shadow_pairs")]


def asked(backend: Backend) -> list[dict[str, Any]]:
    return [request.json for request in backend.requests if request.path == CHAT]


async def outcomes(running: Running, count: int = 1, seconds: float = 10) -> dict[str, float]:
    """What became of the drawn requests, once there are so many."""
    async with asyncio.timeout(seconds):
        while True:
            found = {
                dict(labels)["outcome"]: value
                for (name, labels), value in (await scrape(running)).items()
                if name == "thinkmeter_shadow_requests_total"
            }
            if sum(found.values()) >= count:
                return found
            await asyncio.sleep(0.01)


async def spent(running: Running) -> int:
    """Tokens that the shadow budget counts, those reserved included."""
    settings = running.gateway.snapshot.settings
    assert settings.shadow
    limit = shadow_limit(settings.shadow.budget, settings.redis.prefix)
    store = running.gateway.ledger.store
    _, (state,) = await store.status([limit.window])
    return state.settled + state.reserved


def reloaded(running: Running, settings: dict[str, Any], digest: str = "again") -> None:
    running.gateway.reload(Snapshot.build(parse(yaml.safe_dump(settings), {}), digest))
