"""A replica that does not count prompts is not asked for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.config.models import Replica
from gateway.openai_api.large_requests import LARGE_BODY
from gateway.upstream import prompt_counts
from gateway.upstream.pool import Backend, Pool
from gateway.upstream.prompt_counts import PromptCounts


class Slow:
    """Backends that never answer."""

    asked = 0

    async def ask(self, *args: Any, **options: Any) -> tuple[int, bytes]:
        self.asked += 1
        await asyncio.sleep(3600)
        raise AssertionError


async def test_only_a_replica_that_was_asked_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large prompt that waits in vain for its turn says nothing about the replica."""
    slow, backend, other = (
        Slow(),
        Backend("a", Replica(url="http://a")),
        Backend("b", Replica(url="http://b")),
    )
    counts = PromptCounts(slow)  # type: ignore[arg-type]

    async def count(replica: Backend) -> int | None:
        return await counts.of(Pool("m", "m", [replica]), LARGE_BODY + 1, lambda: b"{}")

    monkeypatch.setattr(prompt_counts, "_SECONDS", 60)
    running = [asyncio.create_task(count(backend)) for _ in range(prompt_counts._AT_ONCE)]
    await asyncio.sleep(0)
    monkeypatch.setattr(prompt_counts, "_SECONDS", 0.05)
    assert await count(other) is None
    assert slow.asked == prompt_counts._AT_ONCE
    assert other.counts_from < 0

    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert await count(backend) is None
    assert backend.counts_from > 0
