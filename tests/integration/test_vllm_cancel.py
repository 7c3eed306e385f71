"""A client that goes away stops vLLM's work, whether it was streaming or not.

The requests would run for 1,800 tokens, so work that ended within a fraction of them was aborted. This vLLM
counts no metric for an abort; it shows as requests that vanish without having been completed, and as a line
in its log.
"""

import asyncio
from dataclasses import dataclass

import pytest
from openai import AsyncOpenAI

from .conftest import ENDLESS, ENDLESS_FIELDS, Eventually
from .processes import Replica

MOST = ENDLESS["long"]["thinking"]


@dataclass
class Watch:
    """vLLM's counters over all replicas, compared with what they were at the start."""

    replicas: list[Replica]

    def __post_init__(self) -> None:
        self._generated, self._completed = self._totals()

    def _totals(self) -> tuple[int, int]:
        return sum(r.generated() for r in self.replicas), sum(r.completed() for r in self.replicas)

    def running(self) -> int:
        return sum(replica.running() for replica in self.replicas)

    def assert_aborted(self, request_id: str) -> None:
        generated, completed = self._totals()
        assert completed == self._completed, "a request ended by itself"
        assert generated - self._generated > 0
        assert any(replica.has_aborted(request_id) for replica in self.replicas)


@pytest.fixture
def watch(replicas: list[Replica]) -> Watch:
    watch = Watch(replicas)
    assert watch.running() == 0
    return watch


async def test_stream_closed(async_client: AsyncOpenAI, watch: Watch, eventually: Eventually) -> None:
    """Closing a stream aborts the request in vLLM; until then the pieces arrived while vLLM was working."""
    stream = await async_client.chat.completions.create(
        **ENDLESS_FIELDS, stream=True, extra_headers={"x-request-id": "closed-stream"}
    )
    async with stream:
        for _ in range(20):
            await anext(stream)
    await eventually(lambda: watch.running() == 0, "vLLM stopped working on the closed stream")
    watch.assert_aborted("closed-stream")


async def test_answer_given_up(async_client: AsyncOpenAI, watch: Watch, eventually: Eventually) -> None:
    """A client that gives up waiting for a whole answer aborts the request in vLLM."""
    request = asyncio.create_task(
        async_client.chat.completions.create(**ENDLESS_FIELDS, extra_headers={"x-request-id": "given-up"})
    )
    await eventually(lambda: watch.running() == 1, "vLLM works on the request")
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    await eventually(lambda: watch.running() == 0, "vLLM stopped working on the request given up")
    watch.assert_aborted("given-up")


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
    await eventually(lambda: watch.running() == 1, "vLLM works on the completion")
    request.cancel()
    await asyncio.wait([request])
    await eventually(lambda: watch.running() == 0, "vLLM stopped working on the completion given up")
    watch.assert_aborted("given-up-completion")


async def test_many_cancelled(async_client: AsyncOpenAI, watch: Watch, eventually: Eventually) -> None:
    """Of many requests at once all are aborted, on both replicas, and the gateway keeps answering."""
    requests = [
        asyncio.create_task(
            async_client.chat.completions.create(
                **ENDLESS_FIELDS, extra_headers={"x-request-id": f"many-{i}"}
            )
        )
        for i in range(8)
    ]
    await eventually(lambda: watch.running() == 8, "vLLM works on all requests")
    for request in requests:
        request.cancel()
    await asyncio.wait(requests)
    await eventually(lambda: watch.running() == 0, "vLLM stopped working on all of them")
    for i in range(8):
        assert any(replica.has_aborted(f"many-{i}") for replica in watch.replicas)
    answer = await async_client.chat.completions.create(
        model="tiny:short", messages=ENDLESS_FIELDS["messages"], temperature=0
    )
    assert answer.choices[0].message.content
