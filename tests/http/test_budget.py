"""The token budget as clients see it: headers, shorter tiers, refusals and the tokens counted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.store.commands import ReserveCommand
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.redis import RealRedis, used
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient_redis")


@pytest.fixture
def redis(redis_server: RealRedis) -> dict[str, str]:
    """The section `redis`, for an empty Redis."""
    redis_server.client().flushall()
    return {"url": redis_server.url}


def budgeted(*budgets: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Sections with budgets for `tiny`, whose four tiers take at most 32, 48, 96 and 288 tokens."""
    defaults = {"window": "1m", "scope": "global"}
    named = [defaults | {"name": f"b{i}"} | budget for i, budget in enumerate(budgets)]
    return {
        "head": "baseline",
        "price": 0,
        "budgets": named,
        "reservations": {"shortest_answer": 16},
    } | sections


def asked(backend: Backend) -> list[dict[str, Any]]:
    """The bodies of the chat requests that reached the backend."""
    return [request.json for request in backend.requests if request.path.endswith("/chat/completions")]


async def test_tokens_are_settled(backend: Backend, redis: dict[str, str]) -> None:
    """Afterwards the window holds the usage that the backend reported, and nothing stays reserved."""
    async with serving(configuration(backend.url, redis=redis, **budgeted({"tokens": 10_000}))) as gateway:
        answers = [await gateway.chat("hello") for _ in range(3)]
        spent = sum([(await answer.json())["usage"]["completion_tokens"] for answer in answers])

        assert await used(gateway) == (spent, 0)
        assert answers[0].headers["x-ratelimit-limit-tokens"] == "10000"
        assert answers[0].headers["x-thinkmeter-budget"] == "b0"
        remaining = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in answers]
        assert remaining[0] == 10_000 - 288
        assert remaining == sorted(remaining, reverse=True)


async def test_the_clamp_is_what_was_reserved(backend: Backend, redis: dict[str, str]) -> None:
    """As the window fills, tiers get shorter, and no request may use more than its reservation; then 429."""
    backend.default = Fault(delay_ms=60_000)
    settings = configuration(backend.url, redis=redis, **budgeted({"tokens": 500}))
    async with serving(settings) as gateway:
        tasks = []
        for count in range(1, 6):
            tasks.append(asyncio.create_task(gateway.chat("prove it")))
            async with asyncio.timeout(20):
                while len(asked(backend)) + sum(task.done() for task in tasks) < count:
                    await asyncio.sleep(0.01)
        caps = [body["max_completion_tokens"] for body in asked(backend)]
        refused = [task.result() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert caps == [288, 96, 96, 20]
        assert [response.status for response in refused] == [429]


async def test_refusal_names_the_budget(backend: Backend, redis: dict[str, str]) -> None:
    """If a one-minute window is full, the 429 names the budget, its numbers and the time to retry."""
    settings = configuration(backend.url, redis=redis, **budgeted({"tokens": 40, "name": "minute"}))
    async with serving(settings) as gateway:
        first = await gateway.chat("hello", max_tokens=40)
        await used(gateway, "minute")
        refused = await gateway.chat("hello")
        error = (await refused.json())["error"]

        assert first.status == 200
        assert (refused.status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "tokens")
        assert "'minute'" in error["message"]
        assert "40 in 1m" in error["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert refused.headers["x-ratelimit-limit-tokens"] == "40"
        assert "x-should-retry" not in refused.headers


async def test_long_budget_is_a_quota(backend: Backend, redis: dict[str, str]) -> None:
    """If a one-day window is full, the 429 is insufficient_quota, which official clients do not retry."""
    settings = configuration(backend.url, redis=redis, **budgeted({"tokens": 40, "window": "24h"}))
    async with serving(settings) as gateway:
        await gateway.chat("hello", max_tokens=40)
        await used(gateway)
        refused = await gateway.chat("hello")

        assert (refused.status, (await refused.json())["error"]["code"]) == (429, "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"


async def test_first_request_on_a_tiny_bucket(backend: Backend, redis: dict[str, str]) -> None:
    """A budget smaller than every tier still serves its first request, with all its tokens."""
    settings = budgeted({"tokens": 10}, reservations={})
    async with serving(configuration(backend.url, redis=redis, **settings)) as gateway:
        answer = await gateway.chat("hello")

        assert answer.status == 200
        assert backend.requests[-1].json["max_completion_tokens"] == 10
        assert answer.headers["x-thinkmeter-reason"] == "budget"


async def test_guarantees_are_never_cut(backend: Backend, redis: dict[str, str]) -> None:
    """A budget never shortens a request below its floor or its fixed tier, but refuses it instead."""
    rules = [{"name": "important", "when": {"metadata": {"class": "gold"}}, "tier": "long"}]
    model = {"floor": "medium"}
    settings = budgeted({"tokens": 200}, rules=rules, model=model)
    async with serving(configuration(backend.url, redis=redis, **settings)) as gateway:
        floor = await gateway.chat("hello")
        fixed = await gateway.chat("hello", metadata={"class": "gold"})

        assert floor.headers["x-thinkmeter-tier"] == "medium"
        assert floor.headers["x-thinkmeter-degraded-from"] == "long"
        assert backend.requests[-1].json["thinking_token_budget"] == 64
        assert (fixed.status, (await fixed.json())["error"]["code"]) == (429, "insufficient_quota")


async def test_queue_waits_for_room(backend: Backend, redis: dict[str, str]) -> None:
    """With a queue, a request that does not fit waits until another gives back its unused tokens."""
    backend.script(Fault(delay_ms=300, status=400))
    settings = budgeted({"tokens": 60}, queue={"seconds": 20})
    async with serving(configuration(backend.url, redis=redis, **settings)) as gateway:
        first = asyncio.create_task(gateway.chat("a", max_tokens=50))
        await backend.wait_until(asked)
        second = await gateway.chat("b", max_tokens=20)
        await first

        assert second.status == 200
        assert int(second.headers["x-thinkmeter-queued-ms"]) > 0
        metrics = await gateway.metrics()
        assert metrics['thinkmeter_budget_decisions_total{budget="b0",outcome="queued"}'] == 1


async def test_queue_is_bounded(
    backend: Backend, redis: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue refuses the next request. A request that is just retrying its reservation still counts."""
    backend.script(Fault(delay_ms=60_000))
    settings = budgeted({"tokens": 60}, queue={"seconds": 60, "requests": 1})
    async with serving(configuration(backend.url, redis=redis, **settings)) as gateway:
        first = asyncio.create_task(gateway.chat("a", max_tokens=50))
        await backend.wait_until(asked)
        store, ask_again = gateway.gateway.ledger.store, asyncio.Event()
        reserve = store.reserve

        async def slow(ask: ReserveCommand, *meanwhile: Any) -> Any:
            if not ask.arrivals:
                ask_again.set()
                await asyncio.sleep(3600)
            return await reserve(ask, *meanwhile)

        monkeypatch.setattr(store, "reserve", slow)
        waiting = asyncio.create_task(gateway.chat("b", max_tokens=20))
        await ask_again.wait()
        refused = await gateway.chat("c", max_tokens=20)
        for task in (first, waiting):
            task.cancel()
        await asyncio.gather(first, waiting, return_exceptions=True)

        assert refused.status == 429


async def test_scopes(backend: Backend, redis: dict[str, str]) -> None:
    """Keys, teams and models have separate windows, and a request must fit into all of its windows."""
    keys = [
        {"name": "ann", "key": "ann-secret", "team": "red"},
        {"name": "bob", "key": "bob-secret", "team": "red"},
        {"name": "cid", "key": "cid-secret"},
    ]
    budgets = [
        {"name": "each", "scope": "key", "tokens": 1000},
        {"name": "teams", "scope": "team", "tokens": 70},
        {"name": "models", "scope": "model", "tokens": 5000, "match": ["tiny"]},
    ]
    settings = configuration(backend.url, redis=redis, **budgeted(*budgets, keys=keys))
    async with serving(settings) as gateway:

        async def ask(name: str) -> Any:
            question: Any = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
            async with gateway.client(f"{name}-secret") as client:
                return await client.chat.completions.with_raw_response.create(**question, max_tokens=50)

        await ask("ann")
        await used(gateway, "teams", "red")
        shortened = await ask("bob")
        other = await ask("cid")

        assert shortened.headers["x-thinkmeter-budget"] == "teams"
        assert other.headers["x-thinkmeter-budget"] == "each"
        spent = [await used(gateway, "each", name) for name in ("ann", "bob", "cid")]
        assert all(tokens > 0 for tokens, _ in spent)
        assert (await used(gateway, "models", "tiny"))[0] == sum(tokens for tokens, _ in spent)
        assert (await used(gateway, "teams", "red"))[0] == spent[0][0] + spent[1][0]


@pytest.fixture
async def total(backend: Backend, redis: dict[str, str]) -> AsyncIterator[Running]:
    """A gateway whose budget also counts prompt tokens."""
    settings = budgeted({"tokens": 100_000, "count": "total"})
    async with serving(configuration(backend.url, redis=redis, **settings)) as gateway:
        yield gateway


async def test_prompts_count_where_asked(total: Running) -> None:
    """With `count: total`, prompt and completion tokens are settled, for embeddings too."""
    usage = (await (await total.chat("one two three")).json())["usage"]
    spent = usage["prompt_tokens"] + usage["completion_tokens"]
    assert await used(total) == (spent, 0)

    body = {"model": "tiny", "input": "one two three"}
    async with total.http.post(f"{total.url}/v1/embeddings", json=body) as response:
        embedded = (await response.json())["usage"]["prompt_tokens"]
    assert await used(total) == (spent + embedded, 0)


async def test_cut_stream_counts_what_passed(backend: Backend, redis: dict[str, str]) -> None:
    """If the client leaves a stream, the tokens sent so far are settled and the rest is released."""
    backend.script(Fault(after=5, end="stall"))
    async with serving(configuration(backend.url, redis=redis, **budgeted({"tokens": 1000}))) as gateway:
        async with gateway.client() as client:
            stream = await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], stream=True
            )
            for _ in range(6):
                await anext(stream)
            await stream.close()
        (record,) = await gateway.recorded(1)

        settled, reserved = await used(gateway)
        assert settled == 5 + 8 + math.ceil(record.rate * (record.silence + 0.5))
        assert reserved == 0


async def test_refused_by_the_backend_costs_nothing(backend: Backend, redis: dict[str, str]) -> None:
    """A request that the backend refuses, or that reaches no backend, gives back its whole reservation."""
    async with serving(configuration(backend.url, redis=redis, **budgeted({"tokens": 1000}))) as gateway:
        backend.script(Fault(status=400, message="no"))
        assert (await gateway.chat("hello")).status == 400
        backend.script(Fault(refuse=True), times=3)
        assert (await gateway.chat("hello")).status >= 500

        assert (await used(gateway))[1] == 0


async def test_completions_have_a_default_length(backend: Backend, redis: dict[str, str]) -> None:
    """A legacy completion without `max_tokens` gets, and reserves, OpenAI's default of 16 per prompt."""
    async with serving(configuration(backend.url, redis=redis, **budgeted({"tokens": 1000}))) as gateway:
        body = {"model": "tiny", "prompt": ["a", "b"], "n": 2}
        async with gateway.http.post(f"{gateway.url}/v1/completions", json=body) as response:
            assert response.status == 200
            remaining = int(response.headers["x-ratelimit-remaining-tokens"])

        assert backend.requests[-1].json["max_tokens"] == 16
        assert remaining == 1000 - 2 * 2 * 16


async def test_embedded_server(backend: Backend, tmp_path: Any) -> None:
    """Without a URL, an embedded Redis keeps the budgets, and spent tokens survive a restart."""
    settings = configuration(
        backend.url, redis={"directory": str(tmp_path)}, **budgeted({"tokens": 1000, "window": "1h"})
    )
    async with serving(settings) as gateway:
        await gateway.chat("hello")
        before = await used(gateway)
    async with serving(settings) as gateway:
        assert await used(gateway) == before
        assert before[0] > 0
