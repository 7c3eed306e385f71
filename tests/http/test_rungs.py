"""Rungs between the named tiers, over HTTP: budgets that backends get, headers, records, shorter tiers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.telemetry.access_log import access_line
from router_model.allocation import best_tier
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import ask, asked, post_recorded
from tests.redis import RealRedis
from tests.serving import Running, configuration, serving

TIERS = {
    "direct": {"thinking": 0, "answer": 32},
    "short": {"thinking": 100, "answer": 32},
    "medium": {"thinking": 400, "answer": 64},
    "long": {"thinking": 1600, "answer": 64},
}
LADDER = [0, 35, 50, 71, 100, 141, 200, 283, 400, 566, 800, 1131, 1600]
SUM = "What is the sum of 17 and 4, step by step?"


def priced(backend: Backend, price: float, **changes: Any) -> dict[str, Any]:
    model = {"tiers": TIERS} | changes.pop("model", {})
    return configuration(backend.url, model=model, price=price, **changes)


async def test_the_backend_gets_the_rung_that_is_worth_most(backend: Backend) -> None:
    """At each price the exact budget reaches the backend, the headers and the record, and can be replayed."""
    budgets = []
    for price in (0, 0.4, 0.8, 1.2, 1.8, 2.6, 5, 1000):
        async with serving(priced(backend, price)) as running:
            answer, record = await post_recorded(running, ask(SUM, model="tiny"))
        decision, sent = record.decision, asked(backend)[-1].json
        assert decision
        rungs = decision.rungs
        budgets.append(decision.thinking)

        assert sent.get("thinking_token_budget", 0) == decision.thinking == LADDER[decision.rung]
        assert sent["max_completion_tokens"] == decision.cap
        assert answer.headers["x-thinkmeter-thinking-budget"] == str(decision.thinking)
        assert answer.headers["x-thinkmeter-tier"] == decision.tier == list(TIERS)[decision.rung // 4]
        assert list(rungs.thinking) == LADDER
        assert (rungs.named, rungs.lowest, rungs.highest) == ((0, 4, 8, 12), 0, 12)
        assert best_tier(rungs.correct, rungs.tokens, price) == decision.rung
        estimates = (rungs.correct[decision.rung], rungs.tokens[decision.rung])
        assert (decision.rung_correct, decision.rung_tokens) == estimates
        assert list(decision.correct.values()) == [rungs.correct[at] for at in rungs.named]

    assert budgets == sorted(budgets, reverse=True)
    assert set(budgets) - {tier["thinking"] for tier in TIERS.values()}


async def test_the_log_line_replays_the_choice(backend: Backend) -> None:
    """From the log line alone, the choice can be made again, up to its rounding."""
    async with serving(priced(backend, 1.2)) as running:
        _, record = await post_recorded(running, ask(SUM, model="tiny"))
    line = json.loads(access_line(record))
    rungs = line["rungs"]
    worth = [p - line["price"] * t / 1000 for p, t in zip(rungs["correct"], rungs["tokens"], strict=True)]

    assert rungs["thinking"][line["rung"]] == line["thinking"]
    assert worth[line["rung"]] >= max(worth[rungs["lowest"] : rungs["highest"] + 1]) - 0.0004
    assert len(line["correct"]) == len(line["tokens"]) == len(TIERS)


@pytest.mark.parametrize(
    ("fields", "model", "thinking"),
    [
        ({"model": "tiny:short"}, {}, 100),
        ({"model": "tiny:long"}, {}, 1600),
        ({"reasoning_effort": "low"}, {}, 100),
        ({"thinking_token_budget": 300}, {}, 300),
        ({"thinking_token_budget": 283}, {}, 283),
        ({"thinking_token_budget": 0}, {"floor": "short"}, 100),
        ({"model": "tiny:direct"}, {"floor": "medium"}, 400),
        ({}, {"rungs": None}, 1600),
    ],
)
async def test_names_and_limits_are_exact(
    backend: Backend, fields: dict[str, Any], model: dict[str, Any], thinking: int
) -> None:
    """At price 0, a pin, an effort and a floor give exactly a tier's budget, and a client's limit itself."""
    async with serving(priced(backend, 0, model=model)) as running:
        answer, record = await post_recorded(running, ask(SUM, **({"model": "tiny"} | fields)))

    assert asked(backend)[-1].json.get("thinking_token_budget", 0) == thinking
    assert answer.headers["x-thinkmeter-thinking-budget"] == str(thinking)
    assert record.decision
    assert answer.headers["x-thinkmeter-tier"] == record.decision.tier


@pytest.mark.usefixtures("patient_redis")
async def test_a_budget_shortens_a_rung_to_the_tier_below(backend: Backend, redis_server: RealRedis) -> None:
    """With room for 157 tokens, a rung of 141 and an answer of 32 becomes `short`, of 100 and 32."""
    redis_server.client().flushall()
    backend.default = Fault(delay_ms=60_000)
    budget = {"name": "all", "window": "1m", "tokens": 340}
    sections = {"budgets": [budget], "redis": {"url": redis_server.url}}
    async with serving(priced(backend, 1.2, **sections)) as running:
        tasks = []
        for count in (1, 2):
            tasks.append(asyncio.create_task(running.chat(SUM)))
            async with asyncio.timeout(20):
                while len(asked(backend)) < count:
                    await asyncio.sleep(0.01)
        first, second = (request.json for request in asked(backend))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        decisions = [record.decision for record in await running.recorded(2)]

    granted = next(made for made in decisions if made and made.reason == "budget")
    assert first["thinking_token_budget"] == 141
    assert second["thinking_token_budget"] == TIERS[granted.tier]["thinking"] == 100
    assert (granted.rung, granted.wanted_rung, granted.wanted) == (4, LADDER.index(141), "short")
    assert granted.rung_tokens == granted.rungs.tokens[granted.rung]


async def test_exploration_draws_every_rung(running: Running, backend: Backend) -> None:
    """Drawn budgets include some between the tiers, and each logs the probability of its rung."""
    settings = priced(backend, 1000, exploration=0.5)
    async with serving(settings) as exploring:
        for _ in range(40):
            await exploring.chat(SUM)
        decisions = [record.decision for record in exploring.records if record.decision]

    drawn = {decision.thinking for decision in decisions if decision.reason == "explored"}
    assert drawn <= set(LADDER[1:])
    assert drawn - {tier["thinking"] for tier in TIERS.values()}
    for decision in decisions:
        assert decision.propensity == pytest.approx(0.5 / 13 + (0.5 if decision.rung == 0 else 0))
