"""The timeouts of an open response."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.config.models import Replica
from gateway.errors import BackendTimeout
from gateway.upstream.pool import Backend
from gateway.upstream.response import UpstreamResponse


class FallsSilent:
    """A response that sends one more block after `seconds`, and nothing after that."""

    status = 200
    headers = ()
    diverted = None

    @staticmethod
    def header(_: bytes) -> str:
        return ""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sent = False

    async def block(self) -> bytes:
        await asyncio.sleep(3600 if self._sent else self._seconds)
        self._sent = True
        return b"more"

    def close(self) -> None:
        pass


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
async def test_no_stream_is_ended_before_its_idle_timeout(share: float) -> None:
    """The deadline moves in steps, but the silence before it is never shorter than configured."""
    idle = 0.4
    source: Any = FallsSilent(share * idle)
    backend = Backend("a", Replica(url="http://a"), healthy=True)
    response = UpstreamResponse(backend, source, b"first", complete=False)
    loop = asyncio.get_running_loop()
    heard = loop.time()

    with pytest.raises(BackendTimeout) as ended:
        async with response.timeouts(idle, loop.time() + 60):
            async for _ in response.blocks():
                heard = loop.time()

    assert loop.time() - heard >= idle
    assert ended.value.detail == "timeouts.idle, 0.4 s"


class Arrives:
    """A response whose body arrives in these blocks."""

    status = 200
    headers = ()

    @staticmethod
    def header(_: bytes) -> str:
        return ""

    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = blocks

    async def block(self) -> bytes:
        return self._blocks.pop(0) if self._blocks else b""


async def test_others_have_their_turn_within_a_large_block() -> None:
    """However much has arrived at once, other tasks run after every few kilobytes of it."""
    body = bytes(range(256)) * 4_000  # 1 MB
    source: Any = Arrives([body[900_000:], b"small"])
    response = UpstreamResponse(
        Backend("a", Replica(url="http://a"), healthy=True), source, body[:900_000], complete=False
    )
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    blocks = [block async for block in response.blocks()]
    running.cancel()

    assert b"".join(blocks) == body + b"small"
    assert max(map(len, blocks)) <= 32_768
    assert turns >= len(body) // 32_768
