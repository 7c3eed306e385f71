"""What happens to calls to Redis when the gateway stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.store.batching import Batcher
from gateway.store.connection import ConnectionBroken, RedisConnection, StoreUnavailable
from gateway.store.journal import Journal
from tests.budget.stores import COMMAND


class Unanswered:
    """A connection to a Redis that has not answered yet."""

    up = True

    def __init__(self) -> None:
        self.done: list[Callable[[Any], None]] = []

    def deadline(self) -> int:
        return 0

    def begin(self, script: str, keys: Any, arguments: Any, operations: Any, done: Any) -> None:
        self.done.append(done)


async def test_stopped_while_a_call_is_under_way() -> None:
    """What Redis has not answered when the gateway stops fails: it is not asked again, for nobody would."""
    redis = Unanswered()
    connection = cast(RedisConnection, redis)
    journal = Journal(connection, prefix="p", gateway_id="g")
    batcher = Batcher(connection, journal, caps="c", lease_ms=1_000, gateway_id="g")
    batcher.start()
    waiting = asyncio.create_task(batcher.reserve(COMMAND))
    async with asyncio.timeout(5):
        while not redis.done:
            await asyncio.sleep(0)
        await batcher.stop()
        redis.done[0](ConnectionBroken("closed"))

        with pytest.raises(StoreUnavailable):
            await waiting
