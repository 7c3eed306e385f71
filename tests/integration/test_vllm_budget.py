"""Under a budget, vLLM reports the usage in every chunk: the cost of a stream is known however it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.redis import delivered
from tests.serving import Running, configuration, serving

from .conftest import ENDLESS, TIERS, Eventually, Puzzle
from .processes import Replica

BUDGET = {"name": "all", "window": "1m", "tokens": 1_000_000}


@pytest.fixture
async def governed(replicas: list[Replica], tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway under a budget, with a Redis of its own, in front of the first replica."""
    settings = configuration(
        replicas[0].url,
        model={"tiers": TIERS | {"endless": ENDLESS["long"]}},
        budgets=[BUDGET],
        redis={"directory": str(tmp_path)},
        timeouts={"first_byte": 600, "idle": 600},
    )
    async with serving(settings) as running:
        yield running


async def settled(running: Running) -> int:
    """Tokens that the budget has counted as spent."""
    await delivered(running.gateway.ledger.store)
    limit = running.gateway.snapshot.budgets.limits["all", "*"]
    _, (use,) = await running.gateway.ledger.store.status([limit.window])
    assert use.reserved == 0
    return int(use.settled)


async def test_a_whole_stream(governed: Running, easy: Puzzle) -> None:
    """The client sees the usage only at the end, where it asked for it. The budget counts the same number."""
    async with governed.client() as client:
        stream = await client.chat.completions.create(
            model="tiny:long",
            messages=easy.messages,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == easy.long.content
    (record,) = await governed.recorded(1)
    assert record.usage.source == "backend"
    assert chunks[-1].usage
    assert await settled(governed) == chunks[-1].usage.completion_tokens == record.usage.completion


async def rest(chunks: AsyncIterator[object]) -> int:
    """Read what is under way from a backend that generates no more. Returns the number of chunks."""
    passed = 0
    with suppress(TimeoutError):
        while await asyncio.wait_for(anext(chunks), 1):
            passed += 1
    return passed


@pytest.mark.parametrize("choices", [1, 3])
async def test_a_stream_that_is_left(
    governed: Running, replicas: list[Replica], eventually: Eventually, choices: int
) -> None:
    """When the client leaves, the budget counts what vLLM has generated so far, for all choices."""
    passed = 0
    before = replicas[0].generated()
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Start with 3. Add 4. What do you get?"}]
    }
    async with governed.client() as client:
        stream = await client.chat.completions.create(
            model="tiny:endless",
            n=choices,
            temperature=0.7,
            stream=True,
            extra_body={"ignore_eos": True},
            **fields,
        )
        async for chunk in stream:
            assert chunk.usage is None
            passed += 1
            if passed == 60:
                break
        with replicas[0].generating_nothing():
            passed += await rest(aiter(stream))
            await stream.close()
            (record,) = await governed.recorded(1)
    await eventually(lambda: replicas[0].running() == 0, "vLLM stopped working on the stream")
    generated = replicas[0].generated() - before

    assert record.usage.source == "counted"
    assert record.usage.completion is not None
    # one chunk of each choice only names the role
    assert passed - choices <= record.usage.completion <= generated < choices * ENDLESS["long"]["thinking"]
    assert await settled(governed) >= generated


@pytest.mark.parametrize(
    "hidden",
    [
        {"stream_interval": 10**6},
        {"stop": ["q" * 20_000]},
        {"stop": ["q" * 20_000], "stream_interval": 10**6},
    ],
)
async def test_a_stream_that_hides_its_count(
    governed: Running, replicas: list[Replica], eventually: Eventually, hidden: dict[str, Any]
) -> None:
    """A client cannot have vLLM keep its count to itself: what was generated is counted, or more."""
    before = replicas[0].generated()
    messages = [{"role": "user", "content": "Start with 3. Add 4. What do you get?"}]
    body = {
        "model": "tiny:endless",
        "messages": messages,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0,
    }
    async with governed.http.post(f"{governed.url}/v1/chat/completions", json=body | hidden) as response:
        await response.content.readany()
        await eventually(lambda: replicas[0].generated() > before + 100, "vLLM generates nothing")
        with replicas[0].generating_nothing():
            await rest(response.content.iter_any())
            response.close()
            await governed.recorded(1)
    await eventually(lambda: replicas[0].running() == 0, "vLLM stopped working on the stream")

    assert await settled(governed) >= replicas[0].generated() - before
