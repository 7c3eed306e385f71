"""Sends requests to the fake backend and parses its responses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from tests.fakes.backend import Backend

CHAT = "/v1/chat/completions"


def ask(**fields: Any) -> dict[str, Any]:
    return {
        "model": "fake",
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 4,
    } | fields


async def stream(http: aiohttp.ClientSession, **fields: Any) -> bytes:
    async with http.post(CHAT, json=ask(stream=True, **fields)) as response:
        return await response.read()


def chunks(body: bytes) -> list[dict[str, Any]]:
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(event) for event in events]


async def raw(backend: Backend, **fields: Any) -> bytes:
    """The bytes that the backend writes on a new connection until it closes it."""
    body = json.dumps(ask(**fields)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        return await reader.read()
    finally:
        writer.close()
