"""Reads the console's event stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.serving import Running


async def _parsed(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def watching(running: Running, key: str | None = None) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """The events of the stream: pairs of name and body."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # a separate session, so that closing the endless stream closes no shared connection
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 20) as http,
        http.get(f"{running.url}/console/events", headers=headers) as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield _parsed(response)


async def next_of(events: AsyncIterator[tuple[str, Any]], name: str) -> Any:
    """The body of the next event of that name."""
    async for found, body in events:
        if found == name:
            return body
    raise AssertionError(f"the stream ended without {name}")
