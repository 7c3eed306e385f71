"""Requests that try to spend more than their reservation: none of them exceeds the window unnoticed."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.openai_api.requests import parse_completion
from gateway.routing.prompt import prompt_bound
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.governed import governed
from tests.redis import RealRedis, used
from tests.serving import Running

pytestmark = pytest.mark.usefixtures("patient_redis")


@pytest.fixture
async def small_day(backend: Backend, redis_server: RealRedis) -> AsyncIterator[Running]:
    async with governed(backend, redis_server, window="24h", tokens=60) as gateway:
        yield gateway


async def post(gateway: Running, path: str, **body: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    async with gateway.http.post(f"{gateway.url}/v1/{path}", json={"model": "tiny"} | body) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, await response.json()


async def overrun(gateway: Running) -> float:
    return (await gateway.metrics()).get('thinkmeter_budget_overrun_tokens_total{budget="b0"}', 0)


@pytest.mark.parametrize(("path", "field"), [("embeddings", "input"), ("completions", "prompt_embeds")])
async def test_many_prompts_in_one(total: Running, path: str, field: str) -> None:
    """Each prompt in a list may fill the whole context, so tokens are reserved for all of them."""
    context = total.gateway.snapshot.pools["tiny"].context
    assert context
    prompts = ["word " * (context // 2)] * 4
    status, headers, _ = await post(total, path, **{field: prompts})

    assert status == 200
    assert int(headers["x-ratelimit-remaining-tokens"]) <= 1_000_000 - 4 * context // 2
    assert await overrun(total) == 0


@pytest.mark.parametrize(
    ("prompt", "embeds", "count"),
    [
        (["a", "b"], None, 2),
        ([[1, 2], [3], [4]], None, 3),
        ([1, 2], None, 1),
        ("a", None, 1),
        ("a", ["x", "y"], 3),
        (None, ["x", "y"], 2),
        (None, "x", 1),
        (None, [], 1),
    ],
)
def test_completion_prompts(prompt: Any, embeds: Any, count: int) -> None:
    """Each prompt of a legacy completion has its own context and its own choices."""
    body = {"model": "m", "prompt": prompt, "prompt_embeds": embeds, "n": 2}
    request = parse_completion(json.dumps(body).encode())

    assert (request.prompts, request.choices) == (count, 2 * count)
    assert prompt_bound(b"x" * 10_000, request, context=100) == 100 * count


@pytest.mark.parametrize("fields", [{"n": 10**9}, {"n": 10**300}, {"max_tokens": 10**18, "n": 7}])
async def test_absurd_numbers(completion: Running, fields: dict[str, Any]) -> None:
    """Absurdly large numbers are cut or refused, and nothing stays reserved."""
    body = {"messages": [{"role": "user", "content": "hello"}]} | fields
    status, _, _ = await post(completion, "chat/completions", **body)

    assert status in {200, 400, 429}
    settled, reserved = await used(completion)
    assert reserved == 0
    assert settled <= 100_000


async def test_an_unreadable_response(completion: Running, backend: Backend) -> None:
    """An unreadable response was generated all the same, so its whole reservation counts as used."""
    backend.script(Fault(garbage=100))
    status, _, _ = await post(completion, "chat/completions", messages=[{"role": "user", "content": "hi"}])

    assert status == 502
    assert await used(completion) == (288, 0)


@pytest.mark.parametrize("hidden", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}])
async def test_reasoning_that_is_not_sent(
    completion: Running, backend: Backend, hidden: dict[str, Any]
) -> None:
    """If the client leaves a stream that hides its reasoning, the whole thinking budget counts as used."""
    backend.script(Fault(after=0, end="stall"))
    body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "hi"}]} | hidden
    async with completion.http.post(f"{completion.url}/v1/chat/completions", json=body) as response:
        await response.content.readany()
    await completion.recorded(1)

    assert await used(completion) == (256 + 8, 0)


async def test_many_tokens_in_one_delta(completion: Running, backend: Backend) -> None:
    """A busy backend puts several tokens into one delta, so a cut stream costs the usage that it reports."""
    said = {"choices": [{"index": 0, "delta": {"content": "a b c d"}}]}
    usage = {"prompt_tokens": 3, "total_tokens": 43, "completion_tokens": 40}
    backend.script(Fault(body=f"data: {json.dumps(said | {'usage': usage})}\n\n"))
    body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with completion.http.post(f"{completion.url}/v1/chat/completions", json=body) as response:
        first = (await response.read()).partition(b"\n\n")[0]

    assert json.loads(first.removeprefix(b"data: ")) == said
    (record,) = await completion.recorded(1)
    assert await used(completion) == (40 + 8 + math.ceil(record.rate * (record.silence + 0.5)), 0)
    assert backend.requests[-1].json["stream_options"]["continuous_usage_stats"] is True


async def test_usage_that_cannot_be(completion: Running, backend: Backend) -> None:
    """Absurd usage from a backend fills the window, but does not break Redis or the sums in it."""
    message = {"role": "assistant", "content": "hi"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2**53 - 1}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    backend.script(Fault(body=body), times=200)
    asked = [
        post(completion, "chat/completions", messages=[{"role": "user", "content": "hi"}], max_tokens=16, n=1)
        for _ in range(200)
    ]
    statuses = {status for status, _, _ in await asyncio.gather(*asked)}

    assert 200 in statuses
    settled, reserved = await used(completion)
    assert settled > 100_000
    assert reserved == 0
    assert completion.gateway.ledger.up


async def test_what_costs_nothing_passes(small_day: Running, backend: Backend) -> None:
    """An embedding uses no completion tokens, so an overspent completion budget does not refuse it."""
    backend.script(Fault(tokens=500, deaf=True))
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    await post(small_day, "chat/completions", **chat)
    assert (await used(small_day))[0] > 60

    assert (await post(small_day, "embeddings", input="hi"))[0] == 200
    assert (await post(small_day, "chat/completions", **chat))[0] == 429


async def test_a_day_that_is_only_reserved(small_day: Running, backend: Backend) -> None:
    """If running requests reserve the rest of a long window, it is not spent, and the client may retry."""
    backend.script(Fault(delay_ms=60_000))
    running = asyncio.create_task(small_day.chat("hello", max_tokens=60))
    await backend.wait_until(lambda b: any(r.path.endswith("/chat/completions") for r in b.requests))
    status, headers, body = await post(
        small_day, "chat/completions", messages=[{"role": "user", "content": "hi"}]
    )
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert headers["retry-after"] == "1"


async def test_a_prompt_that_never_fits(backend: Backend, redis_server: RealRedis) -> None:
    """A prompt longer than its whole budget is refused for good, and the error says how it was counted."""
    async with governed(backend, redis_server, count="total", tokens=500) as gateway:
        status, headers, body = await post(
            gateway, "chat/completions", messages=[{"role": "user", "content": "word " * 200}]
        )

        assert (status, body["error"]["code"]) == (429, "insufficient_quota")
        assert headers["x-should-retry"] == "false"
        assert "a prompt of up to 1,3" in body["error"]["message"]
        assert await used(gateway) == (0, 0)
