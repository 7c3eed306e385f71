"""What a tier changes in a request: the fields that reach the backend, and those that stay as they are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import CHAT, Answer, ask, asked, post, replicated
from tests.serving import TIERS, Running, configuration, serving

OWNED = {"chat_template_kwargs", "thinking_token_budget", "max_completion_tokens"}


async def sent(running: Running, backend: Backend, **fields: Any) -> tuple[Answer, dict[str, Any]]:
    """The response to a chat request, and the body that the backend got."""
    answer = await post(running, ask(**fields))
    assert answer.status == 200, answer.body
    return answer, asked(backend)[-1].json


PINNED = {
    "direct": {"chat_template_kwargs": {"enable_thinking": False}, "max_completion_tokens": 32},
    "short": {
        "chat_template_kwargs": {"enable_thinking": True},
        "thinking_token_budget": 16,
        "max_completion_tokens": 48,
    },
    "long": {
        "chat_template_kwargs": {"enable_thinking": True},
        "thinking_token_budget": 256,
        "max_completion_tokens": 288,
    },
}


async def test_a_pinned_tier(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """A pinned tier sets its fields in the request, and the response's headers show it."""
    for tier, fields in PINNED.items():
        with subtests.test(tier):
            answer, body = await sent(running, backend, model=f"tiny:{tier}")

            assert ask(model="tiny") | fields == body
            thinking = fields.get("thinking_token_budget", 0)
            assert answer.headers["x-thinkmeter-thinking-budget"] == str(thinking)
            assert answer.headers["x-thinkmeter-tier"] == tier
            assert answer.headers["x-thinkmeter-tier-requested"] == tier
            assert answer.json["usage"]["completion_tokens_details"]["reasoning_tokens"] == thinking


CLIENT_LIMITS: list[tuple[dict[str, Any], str, int, int]] = [
    ({"reasoning_effort": "none"}, "direct", 0, 32),
    ({"reasoning_effort": "ultra"}, "direct", 0, 32),
    ({"reasoning": {"effort": "none"}}, "direct", 0, 32),
    ({"reasoning": {"enabled": False}}, "direct", 0, 32),
    ({"thinking": {"type": "disabled"}}, "direct", 0, 32),
    ({"chat_template_kwargs": {"enable_thinking": False}}, "direct", 0, 32),
    ({"thinking_token_budget": 0}, "direct", 0, 32),
    ({"model": "tiny:long", "reasoning_effort": "low"}, "short", 16, 48),
    ({"model": "tiny:long", "reasoning_effort": "medium"}, "medium", 64, 96),
    ({"model": "tiny:long", "reasoning_effort": "xhigh"}, "long", 256, 288),
    ({"model": "tiny:long", "thinking_token_budget": 40}, "short", 40, 72),
    ({"model": "tiny:long", "thinking_token_budget": -1}, "long", 256, 288),
    ({"model": "tiny:long", "thinking": {"type": "enabled", "budget_tokens": 100}}, "medium", 100, 132),
    ({"model": "tiny:long", "reasoning": {"max_tokens": 10}}, "direct", 10, 42),
    ({"model": "tiny:long", "max_tokens": 20}, "long", 10, 20),
    ({"model": "tiny:long", "max_tokens": 500, "max_completion_tokens": 100}, "long", 68, 100),
    ({"model": "tiny:long", "max_completion_tokens": 9_999}, "long", 256, 288),
    ({"model": "tiny:direct", "max_tokens": 1}, "direct", 0, 1),
]


async def test_the_clients_limits_are_ceilings(
    running: Running, backend: Backend, subtests: pytest.Subtests
) -> None:
    """Client limits in any dialect are translated to the backend's, and no other dialect is forwarded."""
    for fields, tier, thinking, cap in CLIENT_LIMITS:
        with subtests.test(fields=fields):
            answer, body = await sent(running, backend, **{"model": "tiny"} | fields)

            assert answer.headers["x-thinkmeter-tier"] == tier
            assert body["chat_template_kwargs"] == {"enable_thinking": bool(thinking)}
            assert body.get("thinking_token_budget", 0) == thinking
            assert body["max_completion_tokens"] == cap
            assert set(body) - {"model", "messages"} <= OWNED
            assert answer.json["usage"]["completion_tokens"] <= cap


async def test_excluded_reasoning_stays_excluded(running: Running, backend: Backend) -> None:
    """OpenRouter's `exclude` becomes vLLM's `include_reasoning`."""
    _, body = await sent(running, backend, model="tiny:short", reasoning={"exclude": True})

    assert body["include_reasoning"] is False
    assert "reasoning" not in body


async def test_other_template_variables_stay(running: Running, backend: Backend) -> None:
    """The tier sets only the template variable that switches thinking; the client's others stay."""
    kwargs = {"enable_thinking": True, "date": "today", "documents": [{"n": 1.50}]}
    _, body = await sent(running, backend, model="tiny:direct", chat_template_kwargs=kwargs)

    assert kwargs | {"enable_thinking": False} == body["chat_template_kwargs"]


async def test_untouched_fields_keep_their_bytes(running: Running, backend: Backend) -> None:
    """Fields that the gateway does not read reach the backend byte by byte, spelling of numbers included."""
    fields = (
        rb'"temperature": 0.70,"seed":12345678901234567890123,"x":1E+2 ,"logit_bias":{"5" : -1.0e-7},'
        rb'"user":"\u00e9\ud83d\ude00 \/","extra":{"b":1,"a":[ null,{ } ]},"stop":["\n\n"]'
    )
    messages = rb'"messages":[{"role":"user", "content":"caf\u00e9 \/ ","name":"x","odd":{"k":[1 ,2]}}]'
    answer = await post(running, b'{"model":"tiny:direct",' + messages + b"," + fields + b"}")

    assert answer.status == 200
    body = asked(backend)[-1].body
    assert messages in body
    values = (
        *(b"0.70", b"12345678901234567890123", b"1E+2", rb'{"5" : -1.0e-7}', rb"\u00e9\ud83d\ude00 \/"),
        *(b'{"b":1,"a":[ null,{ } ]}', rb'["\n\n"]'),
    )
    for value in values:
        assert value in body


FAMILIES = [
    ("gpt-oss", "short", {"reasoning_effort": "low"}),
    ("gpt-oss", "long", {"reasoning_effort": "high"}),
    ("deepseek-r1", "direct", {"thinking_token_budget": 0}),
    ("deepseek-v3", "direct", {"chat_template_kwargs": {"thinking": False}}),
    ("deepseek-v3", "long", {"chat_template_kwargs": {"thinking": True}, "thinking_token_budget": 256}),
    ("deepseek-v4", "long", {"chat_template_kwargs": {"thinking": True}, "reasoning_effort": "high"}),
    ("magistral", "direct", {"reasoning_effort": "none"}),
    ("seed-oss", "short", {"chat_template_kwargs": {"thinking_budget": 16}}),
    ("granite", "long", {"chat_template_kwargs": {"thinking": True}}),
]


async def test_families(backend: Backend, subtests: pytest.Subtests) -> None:
    """Each model family gets its own fields, and none that it would refuse."""
    replicas = [{"url": backend.url}]
    models = {
        family: {"family": family, "tiers": TIERS, "replicas": replicas, "served_name": "tiny"}
        for family, _, _ in FAMILIES
    }
    async with serving({"models": models, "server": {"access_log": False}}) as running:
        for family, tier, fields in FAMILIES:
            with subtests.test(family=family, tier=tier):
                _, body = await sent(running, backend, model=f"{family}:{tier}", reasoning_effort="high")

                cap = TIERS[tier]["thinking"] + TIERS[tier]["answer"]
                assert ask(model="tiny") | fields | {"max_completion_tokens": cap} == body


async def test_a_model_without_reasoning(backend: Backend) -> None:
    """Requests to a plain model are forwarded unchanged: nothing is added, nothing is capped."""
    fields = {"reasoning_effort": "low", "max_tokens": 7, "chat_template_kwargs": {"x": 1}}
    async with serving(configuration(backend.url, model={"family": "plain", "tiers": {}})) as running:
        answer, body = await sent(running, backend, model="tiny", **fields)

    assert ask(model="tiny", **fields) == body
    assert answer.headers["x-thinkmeter-reason"] == "only_tier"


async def test_a_backend_without_budgets(backend: Backend) -> None:
    """With `thinking_budget: false` no budget is sent, and only the cap limits the length."""
    async with serving(configuration(backend.url, model={"thinking_budget": False})) as running:
        _, body = await sent(running, backend, model="tiny:short")

    assert "thinking_token_budget" not in body
    assert body["max_completion_tokens"] == 48


async def test_an_overlay_comes_last(backend: Backend) -> None:
    """A tier's overlay is merged over the fields of the family and of the client."""
    overlay = {"temperature": 0, "chat_template_kwargs": {"style": "brief"}}
    tiers = {"direct": {"thinking": 0, "answer": 8, "overlay": overlay}}
    async with serving(configuration(backend.url, model={"tiers": tiers})) as running:
        _, body = await sent(running, backend, model="tiny", temperature=1, chat_template_kwargs={"k": 2})

    assert body["temperature"] == 0
    assert body["chat_template_kwargs"] == {"k": 2, "enable_thinking": False, "style": "brief"}


async def test_rules_reach_the_wire(backend: Backend) -> None:
    """A rule's fixed tier and a rule's floor apply to the request that the backend gets."""
    rules = [
        {"name": "important", "when": {"header": {"x-priority": "high"}}, "tier": "long"},
        {"name": "minimum", "when": {"metadata": {"team": "law"}}, "floor": "medium"},
    ]
    async with serving(configuration(backend.url, rules=rules)) as running:
        question = ask(model="tiny:direct", max_tokens=10)
        important = await post(running, question, headers={"x-priority": "high"})
        floored = await post(running, question | {"metadata": {"team": "law"}})

    assert important.headers["x-thinkmeter-reason"] == "rule_tier"
    assert floored.headers["x-thinkmeter-reason"] == "rule_floor"
    assert [request.json["thinking_token_budget"] for request in asked(backend)] == [256, 64]
    assert [request.json["max_completion_tokens"] for request in asked(backend)] == [266, 74]


async def test_names_are_the_backends() -> None:
    """The backend gets the name that it serves, not the gateway's name for the model nor a pinned tier."""
    async with Backend("org/real-name") as backend:
        settings = configuration(backend.url, model={"served_name": "org/real-name"})
        async with serving(settings) as running:
            for path, question in (
                (CHAT, ask(model="tiny")),
                (CHAT, ask(model="tiny:long")),
                ("/v1/completions", {"model": "tiny:short", "prompt": "hello"}),
                ("/v1/embeddings", {"model": "tiny", "input": "hello"}),
            ):
                assert (await post(running, question, path=path)).status == 200
        assert {request.json["model"] for request in asked(backend)} == {"org/real-name"}


async def test_legacy_completions_are_clamped_only(running: Running, backend: Backend) -> None:
    """For a legacy completion, which has no chat template, a tier only cuts `max_tokens` to its cap."""
    clamped: dict[int | None, int | None] = {1_000: 48, 5: 5, None: None}
    for requested, forwarded in clamped.items():
        question = {"model": "tiny:short", "prompt": "hello"}
        limit = {} if requested is None else {"max_tokens": requested}
        answer = await post(running, question | limit, path="/v1/completions")

        assert answer.headers["x-thinkmeter-tier"] == "short"
        clamp = {} if forwarded is None else {"max_tokens": forwarded}
        assert question | {"model": "tiny"} | clamp == asked(backend)[-1].json


async def test_the_context_limits_the_cap() -> None:
    """No cap exceeds what the context in /v1/models leaves beside the prompt, or a backend would refuse."""
    async with (
        Backend("tiny", max_model_len=100, clamp=True) as backend,
        serving(configuration(backend.url)) as running,
        running.client() as client,
    ):
        answer, body = await sent(running, backend, model="tiny:long")
        card = await client.models.retrieve("tiny")

    assert (body["max_completion_tokens"], body["thinking_token_budget"]) == (75, 43)
    assert answer.headers["x-thinkmeter-thinking-budget"] == "43"
    assert card.model_dump()["max_model_len"] == 100


async def test_an_unstated_context() -> None:
    """A backend that does not state its context refuses the cap, and is asked again without it."""
    async with Backend("tiny", max_model_len=100) as backend:
        backend.script(Fault(status=404, body={"detail": "Not Found"}), path="/v1/models", times=None)
        async with serving(configuration(backend.url)) as running:
            answer = await post(running, ask(model="tiny:long"))

    assert answer.status == 200
    assert [request.json.get("max_completion_tokens") for request in asked(backend)] == [288, None]
    assert asked(backend)[-1].json["thinking_token_budget"] < 50


async def test_the_smallest_replica_limits_the_cap() -> None:
    """Any replica may get the request, so the smallest context of all replicas limits the cap."""
    async with Backend("tiny", max_model_len=100, clamp=True) as small, Backend("tiny") as large:
        async with serving(configuration(large.url, small.url)) as running:
            for _ in range(2):
                assert (await post(running, ask(model="tiny:long"))).status == 200

        assert [asked(b)[0].json["max_completion_tokens"] for b in (small, large)] == [75, 75]


async def test_adaptive_requests_are_priced() -> None:
    """If no tier is pinned, the price chooses: no thinking at a very high price, the most at zero."""
    for price, tier in ((1_000, "direct"), (0, "long")):
        async with replicated(1, price=price) as (running, (backend,)):
            answer, body = await sent(running, backend, model="tiny", content="prove that 2 + 2 = 4")

        assert answer.headers["x-thinkmeter-tier"] == tier
        assert answer.headers["x-thinkmeter-reason"] == "price"
        assert answer.headers["x-thinkmeter-tier-requested"] == "adaptive"
        assert body["model"] == "tiny"
