"""When a client goes away, vLLM stops working on its request, streamed or not.

The requests would run for 15,300 tokens, so work that ends much earlier was aborted. This vLLM has no metric
of aborts: the requests vanish without being completed, and the log has a line.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from openai import AsyncOpenAI

from .conftest import ENDLESS, ENDLESS_FIELDS, Eventually
from .processes import Replica

MOST = ENDLESS["long"]["thinking"]


@dataclass
class Watch:
    """The replicas' running requests, and how far their counters have risen since the start of the test."""

    replicas: list[Replica]

    def __post_init__(self) -> None:
        self._generated, self._completed = self._totals()

    def _totals(self) -> tuple[int, int]:
        return sum(r.generated() for r in self.replicas), sum(r.completed() for r in self.replicas)

    def running(self) -> int:
        return sum(replica.running() for replica in self.replicas)

    def has_generated(self) -> bool:
        return self._totals()[0] > self._generated

    def works_on(self, request_id: str) -> bool:
        return any(r.has_begun(request_id) and not r.has_aborted(request_id) for r in self.replicas)

    def has_aborted(self, request_id: str) -> bool:
        return any(replica.has_aborted(request_id) for replica in self.replicas)

    async def assert_stopped_early(self, request_id: str, eventually: Eventually) -> None:
        await eventually(lambda: self.has_aborted(request_id), "vLLM aborts the request")
        await eventually(lambda: self.running() == 0, "vLLM is idle")
        generated, completed = self._totals()
        assert completed == self._completed, "a request ended by itself"
        assert 0 < generated - self._generated < MOST // 2


@pytest.fixture
def watch(replicas: list[Replica]) -> Watch:
    watch = Watch(replicas)
    assert watch.running() == 0
    return watch


async def test_stream_closed(async_client: AsyncOpenAI, watch: Watch, eventually: Eventually) -> None:
    """Closing a stream aborts the request in vLLM. Until then, chunks arrive while vLLM is still working."""
    stream = await async_client.chat.completions.create(
        **ENDLESS_FIELDS, stream=True, extra_headers={"x-request-id": "closed-stream"}
    )
    async with stream:
        for _ in range(20):
            await anext(stream)
        assert watch.works_on("closed-stream")
    await watch.assert_stopped_early("closed-stream", eventually)


async def give_up(request: asyncio.Task[Any], request_id: str, watch: Watch, eventually: Eventually) -> None:
    await eventually(lambda: watch.works_on(request_id), "vLLM works on the request")
    await eventually(watch.has_generated, "vLLM has generated something")
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    await watch.assert_stopped_early(request_id, eventually)


async def test_answer_given_up(async_client: AsyncOpenAI, watch: Watch, eventually: Eventually) -> None:
    """When a client stops waiting for a whole response, vLLM aborts the request."""
    request = asyncio.create_task(
        async_client.chat.completions.create(**ENDLESS_FIELDS, extra_headers={"x-request-id": "given-up"})
    )
    await give_up(request, "given-up", watch, eventually)


async def test_completion_given_up(async_client: AsyncOpenAI, watch: Watch, eventually: Eventually) -> None:
    """The same for a legacy completion."""
    request = asyncio.create_task(
        async_client.completions.create(
            model="endless:long",
            prompt="why",
            max_tokens=MOST,
            temperature=0,
            extra_body={"ignore_eos": True},
            extra_headers={"x-request-id": "given-up-completion"},
        )
    )
    await give_up(request, "given-up-completion", watch, eventually)


async def test_many_cancelled(async_client: AsyncOpenAI, watch: Watch, eventually: Eventually) -> None:
    """Many requests at once are all aborted, on both replicas, and the gateway still serves."""
    names = [f"many-{i}" for i in range(8)]
    requests = [
        asyncio.create_task(
            async_client.chat.completions.create(**ENDLESS_FIELDS, extra_headers={"x-request-id": name})
        )
        for name in names
    ]
    await eventually(lambda: all(map(watch.works_on, names)), "vLLM works on all requests")
    assert all(any(r.has_begun(name) for name in names) for r in watch.replicas)
    for request in requests:
        request.cancel()
    await asyncio.wait(requests)
    await eventually(lambda: all(map(watch.has_aborted, names)), "vLLM aborts all of them")
    await eventually(lambda: watch.running() == 0, "vLLM is idle")
    answer = await async_client.chat.completions.create(
        model="tiny:short", messages=ENDLESS_FIELDS["messages"], temperature=0
    )
    assert answer.choices[0].message.content
