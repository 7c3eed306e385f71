"""The dry run: the decision for a request and the changes to it, without asking a backend."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import __version__
from tests.fakes.backend import GENERATION, Backend
from tests.http.raw_http import Answer, ask, assert_error
from tests.serving import Running, configuration, serving

HELLO = [{"role": "user", "content": "hello"}]


async def route(running: Running, body: Any = None, **headers: str) -> Answer:
    return await ask(running.http, running.url, "/v1/route", {"messages": HELLO} | body, **headers)


async def test_decision_is_explained(running: Running) -> None:
    """The response has the whole decision: tier, reason, estimates for each tier, price and versions."""
    answer = await route(running, {"model": "tiny"})

    decision = answer.json["decision"]
    tiers = ["direct", "short", "medium", "long"]
    assert answer.status == 200
    assert decision["model"] == "tiny"
    assert decision["tier"] in tiers
    assert decision["reason"] == "price"
    assert decision["rule"] is None
    assert decision["requested"] == "adaptive"
    assert decision["eligible"] == tiers
    assert 0 < decision["difficulty"] < 1
    assert list(decision["correct"]) == list(decision["tokens"]) == tiers
    assert all(0 <= correct <= 1 for correct in decision["correct"].values())
    assert decision["price"] == 0.02
    assert decision["propensity"] == 1
    assert decision["cap"] == decision["thinking"] + 32
    assert decision["versions"]["gateway"] == __version__
    assert decision["versions"]["head"] == "baseline-heuristic-1"


async def test_decision_maximises_the_stated_value(running: Running) -> None:
    """The choice can be recomputed from the response: it maximises P(right) - price * tokens / 1000."""
    for prompt in ("hi", "Prove the theorem step by step and compute the integral", "x " * 5000):
        body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}]}
        decision = (await route(running, body)).json["decision"]
        rungs = decision["rungs"]
        value = {
            rung: rungs["correct"][rung] - decision["price"] * rungs["tokens"][rung] / 1000
            for rung in range(rungs["lowest"], rungs["highest"] + 1)
        }
        assert decision["rung"] == max(value, key=value.__getitem__)
        assert [rungs["correct"][at] for at in rungs["named"]] == list(decision["correct"].values())


async def test_nothing_is_forwarded(running: Running, backend: Backend) -> None:
    """A dry run reaches no backend and counts no tokens."""
    await route(running, {"model": "tiny", "stream": True})

    assert not GENERATION & {request.path for request in backend.requests}
    assert not [name for name in await running.metrics() if name.startswith("thinkmeter_tokens_total")]


async def test_dry_run_works_without_a_backend(running: Running, backend: Backend) -> None:
    """A dry run works while the backend is down."""
    await backend.down()

    assert (await route(running, {"model": "tiny"})).status == 200


CHANGES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    # fields of the request, fields that are set, fields that are removed
    (
        {"model": "tiny:short"},
        {
            "model": "tiny",
            "chat_template_kwargs": {"enable_thinking": True},
            "thinking_token_budget": 16,
            "max_completion_tokens": 48,
        },
        [],
    ),
    (
        {"model": "tiny", "reasoning_effort": "none", "temperature": 0.5, "seed": 7},
        {"chat_template_kwargs": {"enable_thinking": False}, "max_completion_tokens": 32},
        ["reasoning_effort"],
    ),
    (
        {"model": "tiny:direct", "max_tokens": 8, "chat_template_kwargs": {"own": 1}},
        {
            "model": "tiny",
            "chat_template_kwargs": {"own": 1, "enable_thinking": False},
            "max_completion_tokens": 8,
        },
        ["max_tokens"],
    ),
    (
        {"model": "tiny:direct", "stream": True, "max_completion_tokens": 32},
        {
            "model": "tiny",
            "chat_template_kwargs": {"enable_thinking": False},
            "stream_options": {"include_usage": True},
        },
        [],
    ),
]


@pytest.mark.parametrize(("fields", "expected", "removed"), CHANGES)
async def test_changes_are_shown(
    running: Running, fields: dict[str, Any], expected: dict[str, Any], removed: list[str]
) -> None:
    """`set` and `removed` list exactly the fields that the gateway changes."""
    answer = await route(running, fields)

    assert answer.json["request"] == {"set": expected, "removed": removed}


@pytest.mark.parametrize("fields", [fields for fields, *_ in CHANGES])
async def test_real_request_is_what_was_shown(
    running: Running, backend: Backend, fields: dict[str, Any]
) -> None:
    """A real request reaches the backend with the changes and the decision that the dry run showed."""
    body = {"messages": HELLO} | fields
    dry = (await route(running, fields)).json

    answer = await ask(running.http, running.url, "/v1/chat/completions", body)

    kept = {name: value for name, value in body.items() if name not in dry["request"]["removed"]}
    assert backend.requests[-1].json == kept | dry["request"]["set"]
    assert answer.headers["x-thinkmeter-tier"] == dry["decision"]["tier"]
    assert answer.headers["x-thinkmeter-reason"] == dry["decision"]["reason"]
    assert answer.headers["x-thinkmeter-tier-requested"] == dry["decision"]["requested"]
    assert answer.headers["x-thinkmeter-thinking-budget"] == str(dry["decision"]["thinking"])
    assert answer.headers["x-thinkmeter-difficulty"] == f"{dry['decision']['difficulty']:.3f}"
    assert answer.headers["x-thinkmeter-decision-id"] != dry["decision"]["id"]


async def test_rules_and_keys_are_applied(backend: Backend) -> None:
    """A dry run applies rules and keys as a real request would."""
    rule = {"name": "law", "when": {"header": {"x-team": "law"}}, "floor": "medium", "over_keys": True}
    keys = [{"name": "a", "key": "sk-a", "ceiling": "short"}]
    async with serving(configuration(backend.url, rules=[rule], keys=keys)) as running:
        plain = await route(running, {"model": "tiny:long"}, x_api_key="sk-a")
        law = await route(running, {"model": "tiny:long"}, x_api_key="sk-a", x_team="law")
        assert_error(await route(running, {"model": "tiny"}), 401, "invalid_api_key")

    assert [plain.json["decision"][n] for n in ("tier", "reason", "rule")] == ["short", "key_ceiling", None]
    assert [law.json["decision"][n] for n in ("tier", "reason", "rule")] == ["medium", "rule_floor", "law"]


async def test_model_without_tiers(backend: Backend) -> None:
    """A model without reasoning has only one tier, and nothing in the request is changed."""
    model = {"family": "plain", "tiers": {}}
    async with serving(configuration(backend.url, model=model)) as running:
        answer = await route(running, {"model": "tiny", "max_tokens": 5})

    assert answer.json["decision"]["reason"] == "only_tier"
    assert answer.json["decision"]["cap"] == 5
    assert answer.json["request"] == {"set": {}, "removed": []}


async def test_prompt_is_not_repeated(running: Running) -> None:
    """The response contains nothing of the prompt, so it is safe to paste into a ticket."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "m4rker " * 20}], "user": "m4rker"}

    assert b"m4rker" not in (await route(running, body)).body
