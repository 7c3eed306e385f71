"""One of two replicas dies while requests run, and comes back. These tests run last."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from .conftest import ENDLESS_FIELDS, Eventually
from .processes import Replica, Server, fetch

SHORT: dict[str, Any] = {
    "model": "tiny:medium",
    "messages": [{"role": "user", "content": "What is 3+4?"}],
    "temperature": 0,
}
WHOLE = ENDLESS_FIELDS | {"max_tokens": 300}
STREAM = ENDLESS_FIELDS | {"stream": True}


async def answered_by(async_client: AsyncOpenAI) -> str:
    response = await async_client.chat.completions.with_raw_response.create(**SHORT)
    assert (response.parse().choices[0].message.content or "").strip() == "7"
    return response.headers["x-thinkmeter-backend"]


async def stream_on(async_client: AsyncOpenAI, replica: Replica) -> tuple[Any, list[Any]]:
    """A stream that this replica serves, and the streams of other replicas that were opened before it."""
    others = []
    for _ in range(4):
        response = await async_client.chat.completions.with_raw_response.create(**STREAM)
        if response.headers["x-thinkmeter-backend"] == replica.name:
            return response.parse(), others
        others.append(response.parse())
    raise AssertionError(f"no request was sent to replica {replica.name}")


async def assert_breaks_with_an_error(stream: Any) -> None:
    with pytest.raises(openai.APIError) as caught:
        async for chunk in stream:
            assert chunk.choices[0].finish_reason is None, "a stream cut short must not look finished"
    assert "127.0.0.1" not in str(caught.value)


async def test_replica_dies(
    async_client: AsyncOpenAI, gateway: Server, doomed: Replica, eventually: Eventually
) -> None:
    """Whole responses come from the other replica, a stream ends with an error, and service goes on."""
    stream, others = await stream_on(async_client, doomed)
    create = async_client.chat.completions.with_raw_response.create
    names = [f"whole-{i}" for i in range(6)]
    await anext(stream)
    with doomed.generating_nothing():  # so that no answer is complete when the replica dies
        waiting = [
            asyncio.create_task(create(**WHOLE, extra_headers={"x-request-id": name})) for name in names
        ]
        await eventually(lambda: any(map(doomed.has_begun, names)), "it works on whole answers as well")
        doomed.kill()
    await assert_breaks_with_an_error(stream)
    for other in others:
        await other.close()
    answers = await asyncio.gather(*waiting)
    assert {answer.headers["x-thinkmeter-backend"] for answer in answers} == {"a"}
    assert all(answer.parse().choices[0].message.content for answer in answers)
    assert [await answered_by(async_client) for _ in range(8)] == ["a"] * 8
    assert fetch(f"{gateway.url}/readyz")


async def test_replica_comes_back(async_client: AsyncOpenAI, doomed: Replica) -> None:
    """A replica that died is used again once its health check succeeds."""
    doomed.kill()
    assert await answered_by(async_client) == "a"
    doomed.start_again()
    await asyncio.to_thread(doomed.wait_until_ready, "/health")
    await until_used(async_client, doomed)


async def until_used(async_client: AsyncOpenAI, replica: Replica) -> None:
    async with asyncio.timeout(60):
        while replica.name not in await asyncio.gather(*[answered_by(async_client) for _ in range(2)]):
            await asyncio.sleep(0.2)


async def test_engine_dies(async_client: AsyncOpenAI, doomed: Replica, eventually: Eventually) -> None:
    """If only vLLM's engine dies, requests end soon, with a response or an error, and service goes on."""
    doomed.start_again()
    await asyncio.to_thread(doomed.wait_until_ready, "/health")
    await until_used(async_client, doomed)
    stream, others = await stream_on(async_client, doomed)
    create = async_client.chat.completions.create
    names = [f"engine-{i}" for i in range(4)]
    with doomed.generating_nothing():
        waiting = [
            asyncio.create_task(create(**WHOLE, extra_headers={"x-request-id": name})) for name in names
        ]
        await eventually(lambda: any(map(doomed.has_begun, names)), "it works on whole answers as well")
        doomed.kill_child("VLLM::EngineCore")
    await assert_breaks_with_an_error(stream)
    for other in others:
        await other.close()
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, openai.InternalServerError)
            assert "127.0.0.1" not in outcome.message
        else:
            assert outcome.choices[0].message.content
    assert [await answered_by(async_client) for _ in range(4)] == ["a"] * 4
