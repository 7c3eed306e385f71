"""What is counted for clients that hide what they spend, decide their own length, or send media."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.openai_api.test_images import png
from tests.redis import RealRedis, used
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")


# --- what a client may hide ------------------------------------------------------------------------------


async def leave(gateway: Running, backend: Backend, until: bytes = b"t2", **fields: Any) -> None:
    """Ask for a stream of 3 tokens that then stalls, and leave it."""
    backend.script(Fault(after=3, end="stall"))
    body = {"model": "tiny:direct", "stream": True, "messages": [{"role": "user", "content": "hi"}]} | fields
    async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
        await response.content.readuntil(until)
    await gateway.recorded(1)


def at_its_pace(gateway: Running) -> int:
    """The tokens that the only stream could have brought until half a second after it was left."""
    (record,) = gateway.records
    assert 0 < record.rate <= 2 * 3 * record.choices
    return math.ceil(record.rate * (record.silence + 0.5))


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 3 + 8),
        ({"stream_interval": 1_000_000}, 3 + 8),
        ({"temperature": 0.5}, 3 + 8),
        ({"stop": "12"}, 3 + 8 + 4 * 2),
        ({"stop": ["\n", "x" * 20_000]}, 32),
        ({"use_beam_search": True}, 32),
        ({"best_of": 2}, 64),
        ({"a_field_of_next_year": 1}, 32),
        ({"n": 2, "stop": "x" * 1000}, 64),
    ],
)
async def test_a_stream_that_its_client_can_silence(
    completion: Running, backend: Backend, fields: dict[str, Any], tokens: int
) -> None:
    """A stream that is left costs what passed, and what its client could keep out of sight."""
    await leave(completion, backend, b"t1" if "n" in fields else b"t2", **fields)

    settled, reserved = await used(completion)
    most = 32 * max(fields.get("n", 1), fields.get("best_of", 1))
    assert settled == min(tokens + at_its_pace(completion), most)
    assert reserved == 0
    assert "stream_interval" not in next(r.json for r in backend.requests if r.method == "POST")


async def test_a_stream_that_ends_at_a_stop_string(completion: Running, backend: Backend) -> None:
    """It costs what the backend had counted, and what it may generate until it notices that it was left."""
    backend.script(Fault(tokens=30, reasoning=5, after=9, end="stall"))
    answer = await completion.chat(model="tiny:short", stream=True, stop="t3")
    (record,) = await completion.recorded(1)

    assert (await answer.text()).endswith("data: [DONE]\n\n")
    assert record.usage.completion == 9
    unseen = math.ceil(record.rate * (record.silence + 0.5))
    assert await used(completion) == (min(9 + 8 + unseen, 48), 0)


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "function"}]}, {"ignore_eos": True}, {"min_tokens": 30}]
)
async def test_a_stream_that_may_pause(completion: Running, backend: Backend, fields: dict[str, Any]) -> None:
    """Where tokens may pass unseen, the time since the last one counts as well."""
    await leave(completion, backend, **fields)
    (record,) = completion.records

    unseen = math.ceil(1000 * record.silence + record.rate / 2)
    assert unseen > record.rate / 2
    assert await used(completion) == (min(3 + 8 + unseen, 32), 0)


async def test_a_stream_that_nobody_reads(
    completion: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream whose last count is old when its client leaves may have gone on: it costs all that it may."""
    monkeypatch.setattr("gateway.openai_api.stream._FRESH", 0.0)
    await leave(completion, backend)

    assert await used(completion) == (32, 0)


async def test_hidden_reasoning_without_a_thinking_budget(backend: Backend, redis_server: RealRedis) -> None:
    """Where no thinking budget is sent, reasoning that is not shown may take the whole limit."""
    redis_server.ask("FLUSHALL")
    settings = configuration(
        backend.url,
        model={"thinking_budget": False},
        redis={"url": redis_server.url},
        budgets=[{"name": "b0", "window": "1m", "tokens": 10_000}],
    )
    async with serving(settings) as gateway:
        await leave(gateway, backend, b"r2", model="tiny:short", include_reasoning=False)

        assert await used(gateway) == (48, 0)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": -7}},
        {"choices": [], "usage": {"completion_tokens": 2**60}},
        {"choices": [], "usage": {"completion_tokens": "many"}},
        "no JSON",
    ],
)
async def test_a_response_that_says_nothing(completion: Running, backend: Backend, body: Any) -> None:
    """A response without a usable count costs all that it may have spent, never nothing."""
    backend.script(Fault(body=body))
    await completion.chat(model="tiny:direct")

    assert await used(completion) == (32, 0)


async def test_a_stream_that_says_nothing(completion: Running, backend: Backend) -> None:
    """A stream that ends as it should, but without any count, costs all that it may have spent."""
    backend.script(Fault(body="data: [DONE]\n\n"))
    await completion.chat(model="tiny:direct", stream=True)

    assert await used(completion) == (32, 0)


async def test_a_failure_after_the_work(
    completion: Running, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that comes late may follow the whole answer; one that comes at once costs nothing."""
    backend.script(Fault(status=500), times=2)
    await completion.chat(model="tiny:direct")
    assert await used(completion) == (0, 0)

    monkeypatch.setattr("gateway.budget.ledger._PROMPTLY", 0.0)
    await completion.chat(model="tiny:direct")
    assert await used(completion) == (32, 0)


# --- reserve: p95 ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def likely(backend: Backend, server: RealRedis, share: float) -> AsyncIterator[Running]:
    """A gateway with a trained head, of whose estimates `reserve: p95` makes reservations."""
    server.ask("FLUSHALL")
    settings = configuration(
        backend.url,
        model={
            "tiers": {"direct": {"thinking": 0, "answer": 2000}, "long": {"thinking": 8000, "answer": 2000}}
        },
        redis={"url": server.url},
        head="general",
        budgets=[{"name": "b0", "window": "1m", "tokens": 20_000, "reserve": "p95"}],
        reservations={"p95_overrun": share},
    )
    async with serving(settings) as gateway:
        yield gateway


async def at_once(gateway: Running, backend: Backend, count: int, **fields: Any) -> int:
    """Ask often at once for answers that use their whole limit. Returns how many were answered."""
    backend.default = Fault(delay_ms=300, tokens=100_000)
    asked = [gateway.chat("What is 2 + 2?", model="tiny:direct", **fields) for _ in range(count)]
    return sum(response.status == 200 for response in await asyncio.gather(*asked))


@pytest.mark.parametrize(
    "fields",
    [{"ignore_eos": True}, {"min_tokens": 1900}, {"n": 2}, {"logit_bias": {"2": -100}}, {"unknown": 1}],
)
async def test_p95_does_not_hold_for_what_clients_decide(
    backend: Backend, redis_server: RealRedis, fields: dict[str, Any]
) -> None:
    """Where a client decides the length, the limit is reserved, so that the window is not exceeded."""
    async with likely(backend, redis_server, share=100) as gateway:
        answered = await at_once(gateway, backend, 30, **fields)

        settled, reserved = await used(gateway)
    assert 0 < answered < 30
    assert settled <= 20_000
    assert reserved == 0


@pytest.mark.parametrize(("share", "over"), [(0.0, 0), (0.2, 4_000)])
async def test_p95_is_exceeded_by_a_share(
    backend: Backend, redis_server: RealRedis, share: float, over: int
) -> None:
    """If every answer is as long as it may be, the window is exceeded by the configured share at most."""
    async with likely(backend, redis_server, share=share) as gateway:
        answered = await at_once(gateway, backend, 30)

        settled, _ = await used(gateway)
    assert answered >= 10
    assert 20_000 <= settled <= 20_000 + over
    assert all(r.json["max_completion_tokens"] <= 2000 for r in backend.requests if r.method == "POST")


# --- media -----------------------------------------------------------------------------------------------


def picture(width: int, height: int) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(png(width, height)).decode()
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("part", "least", "most"),
    [
        (picture(3584, 3584), 16_384, 17_000),
        (picture(1000, 800), 1_044, 1_700),
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, 16_384, 17_000),
        (
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + "AAAA" * 100_000}},
            16_384,
            17_000,
        ),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, 32_768, 32_768),
    ],
)
async def test_media_are_reserved_by_what_they_become(
    total: Running, backend: Backend, part: dict[str, Any], least: int, most: int
) -> None:
    """Neither is a small file with many tokens let through, nor a large one with few refused."""
    backend.script(Fault(delay_ms=0, usage="missing"))
    response = await total.chat([part], model="tiny:direct")  # type: ignore[arg-type]

    assert response.status == 200
    settled, _ = await used(total)
    assert least <= settled - 32 <= most
