"""Prompts that fit the model fit through the gateway too, whatever the tier adds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.upstream import prompt_counts
from tests.fakes.backend import Backend
from tests.fakes.connection import Request
from tests.fakes.fault import Fault
from tests.redis import RealRedis
from tests.serving import Running, configuration, serving

pytestmark = pytest.mark.usefixtures("patient")
CONTEXT = 8000
ROOMY = {"direct": {"thinking": 0, "answer": 400}, "long": {"thinking": 6000, "answer": 400}}
LONG = "word " * 7000  # one token each, as the fake backend counts
UNABLE = Fault(status=404, body={"detail": "Not Found"})


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a count longer than usual, so that a busy machine fails no test."""
    monkeypatch.setattr(prompt_counts, "_SECONDS", 20)


def old(**options: Any) -> Backend:
    """A backend that refuses prompt and cap together over its context, as vLLM before 0.32."""
    return Backend("tiny", max_model_len=CONTEXT, **options)


def roomy(backend: Backend, **sections: Any) -> Any:
    model = {"tiers": ROOMY} | sections.pop("model", {})
    return serving(configuration(backend.url, model=model, **sections))


def asked(backend: Backend, path: str = "/v1/chat/completions") -> list[Request]:
    return [request for request in backend.requests if request.path == path]


@pytest.mark.parametrize("clamp", [False, True], ids=["refuses", "lowers"])
@pytest.mark.parametrize("counts", [True, False], ids=["counted", "estimated"])
async def test_long_prompt_at_every_tier(*, clamp: bool, counts: bool) -> None:
    """A prompt with little room beside it is answered at every tier, and the thought leaves an answer."""
    async with old(clamp=clamp) as backend, roomy(backend) as gateway:
        if not counts:
            backend.script(UNABLE, path="/tokenize", times=None)
        for tier in ("", ":direct", ":long"):
            response = await gateway.chat(LONG, model=f"tiny{tier}")
            cap, usage = asked(backend)[-1].json["max_completion_tokens"], (await response.json())["usage"]
            answer = usage["completion_tokens"] - usage["completion_tokens_details"]["reasoning_tokens"]
            assert response.status == 200
            assert cap + 7000 <= CONTEXT
            assert answer >= min(400, cap // 2)
        assert len(asked(backend, "/tokenize")) == (3 if counts else 1)


async def test_short_prompt_asks_nobody() -> None:
    """Where the bytes of a request show that everything fits, the backend is not asked."""
    async with old() as backend, roomy(backend) as gateway:
        response = await gateway.chat("word " * 200, model="tiny:long")

        assert asked(backend)[-1].json["max_completion_tokens"] == 6400
        assert (response.status, len(backend.requests)) == (200, 3)  # with the two of the health check


async def test_question_is_the_prompt_as_it_will_be_sent() -> None:
    """The backend counts the served name's prompt with all that its template renders."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    extra = {"documents": [{"text": "d"}], "chat_template_kwargs": {"custom": 1, "thinking": True}}
    async with old() as backend, roomy(backend) as gateway:
        await gateway.chat(LONG, model="tiny:long", tools=tools, temperature=0.5, **extra)
        (question,) = asked(backend, "/tokenize")

        assert question.json == {
            "model": "tiny",
            "messages": [{"role": "user", "content": LONG}],
            "tools": tools,
            "chat_template_kwargs": {"documents": [{"text": "d"}], "custom": 1, "enable_thinking": True},
        }


@pytest.mark.parametrize(
    "fault",
    [
        UNABLE,
        Fault(status=405, body={}),
        Fault(status=500),
        Fault(body={"choices": []}),
        Fault(body={"count": "many"}),
        Fault(garbage=3),
        Fault(reset=True),
        Fault(delay_ms=10**7),
    ],
    ids=["404", "405", "500", "another-answer", "no-number", "garbage", "reset", "silent"],
)
async def test_replica_that_cannot_count(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a count the room is estimated, and the replica is left alone for a while."""
    if fault.delay_ms:
        monkeypatch.setattr(prompt_counts, "_SECONDS", 0.05)
    async with old() as backend, roomy(backend) as gateway:
        backend.script(fault, path="/tokenize", times=None)
        first = (await gateway.chat(LONG, model="tiny:long")).status
        questions = len(asked(backend, "/tokenize"))
        second = (await gateway.chat(LONG, model="tiny:long")).status

        assert (first, second) == (200, 200)
        assert len(asked(backend, "/tokenize")) == questions
        assert questions or fault.delay_ms


async def test_replica_that_refuses_the_prompt_is_asked_again() -> None:
    """A refused question says something about that prompt, not about the replica."""
    async with old() as backend, roomy(backend) as gateway:
        backend.script(Fault(status=400), path="/tokenize", times=1)
        for _ in range(2):
            await gateway.chat(LONG, model="tiny:long")

        assert len(asked(backend, "/tokenize")) == 2


@pytest.mark.parametrize(("tier", "limit", "sent"), [("direct", 3000, 400), ("long", 3000, 3000)])
async def test_limit_of_the_client_that_does_not_fit(tier: str, limit: int, sent: int) -> None:
    """What the backend refuses without the gateway it may refuse through it, and the client hears why."""
    async with old() as backend, roomy(backend) as gateway:
        response = await gateway.chat(LONG, model=f"tiny:{tier}", max_tokens=limit)

        assert asked(backend)[-1].json["max_completion_tokens"] == sent
        assert response.status == (200 if sent + 7000 <= CONTEXT else 400)
        backend.clamp = True
        response = await gateway.chat(LONG, model=f"tiny:{tier}", max_tokens=limit)
        usage = (await response.json())["usage"]
        assert usage["completion_tokens"] - usage["completion_tokens_details"]["reasoning_tokens"] >= 400


async def test_prompt_that_does_not_fit_at_all() -> None:
    """The backend's own refusal passes."""
    async with old() as backend, roomy(backend) as gateway:
        response = await gateway.chat("word " * 9000, model="tiny:long")

        assert (response.status, (await response.json())["error"]["code"]) == (400, "context_length_exceeded")


async def test_family_that_is_told_an_effort() -> None:
    """Where nothing shortens a thought, a tier is taken that leaves an answer, and the reason says so."""
    async with old() as backend, roomy(backend, model={"family": "gpt-oss", "tiers": {}}) as gateway:
        response = await gateway.chat(LONG, model="tiny:long")

        assert response.status == 200
        assert response.headers["x-thinkmeter-reason"] == "context"
        assert response.headers["x-thinkmeter-degraded-from"] == "long"
        assert asked(backend)[-1].json["reasoning_effort"] == "low"


@pytest.mark.usefixtures("patient_redis")
async def test_budget_reserves_no_more_than_the_room(redis_server: RealRedis) -> None:
    """What is reserved follows the room, so that a window holds more long prompts."""
    budgets = [{"name": "all", "window": "1m", "tokens": 1500}]
    redis = {"url": redis_server.url}
    async with old() as backend, roomy(backend, budgets=budgets, redis=redis) as gateway:
        response = await gateway.chat(LONG, model="tiny:long")
        (record,) = await gateway.recorded(1)

        assert (response.status, response.headers["x-thinkmeter-tier"]) == (200, "long")
        assert record.reservation is not None
        assert record.reservation.max_tokens == asked(backend)[-1].json["max_completion_tokens"] <= 1000


async def test_image_is_not_sent_to_be_counted() -> None:
    """A backend may count an image as one mark, so its tokens are estimated by its family's rule."""
    parts = [{"type": "text", "text": LONG}, {"type": "image_url", "image_url": {"url": "http://x/i.png"}}]
    async with old() as backend, roomy(backend) as gateway:
        response = await gateway.chat(model="tiny:long", messages=[{"role": "user", "content": parts}])

        assert response.status == 200
        assert asked(backend, "/tokenize") == []


async def test_cut_prompt_leaves_room_for_what_is_kept() -> None:
    """vLLM before 0.32 refuses a cap beside which the tokens kept of a prompt find no room."""
    async with old() as backend, roomy(backend) as gateway:
        await gateway.chat("word", model="tiny:long", truncate_prompt_tokens=5000)
        assert asked(backend)[-1].json["max_completion_tokens"] + 5000 <= CONTEXT
        assert asked(backend, "/tokenize") == []


@pytest.mark.parametrize("limit", [{}, {"max_tokens": None}])
async def test_legacy_completion_without_a_limit(limit: dict[str, None]) -> None:
    """It has the 16 tokens of the API's default, which need no room to be found."""
    async with old() as backend, roomy(backend) as gateway:
        body = {"model": "tiny:long", "prompt": LONG, **limit}
        async with gateway.http.post(f"{gateway.url}/v1/completions", json=body) as response:
            assert response.status == 200
        assert asked(backend, "/tokenize") == []


async def test_dry_run_shows_the_room() -> None:
    """A dry run of a long prompt shows the lengths that a real request gets."""
    async with old() as backend, roomy(backend) as gateway:
        await gateway.chat(LONG, model="tiny:long")
        sent = asked(backend)[-1].json
        body = {"model": "tiny:long", "messages": [{"role": "user", "content": LONG}]}
        async with gateway.http.post(f"{gateway.url}/v1/route", json=body) as response:
            shown = (await response.json())["request"]["set"]

        assert shown["max_completion_tokens"] == sent["max_completion_tokens"]
        assert shown["thinking_token_budget"] == sent["thinking_token_budget"]


@pytest.mark.parametrize("parent", ["base", "org/base"])
async def test_adapter_without_a_context_has_its_parents(parent: str) -> None:
    """vLLM states no length in the card of an adapter, so its tiers could exceed the context."""
    base = {"id": "base", "root": "org/base", "parent": None, "max_model_len": 1000}
    cards = {"object": "list", "data": [base, {"id": "tiny", "root": "/lora", "parent": parent}]}
    async with Backend("tiny", max_model_len=1000) as backend:
        backend.script(Fault(body=json.dumps(cards)), path="/v1/models", times=None)
        async with roomy(backend) as gateway:
            assert (await gateway.chat(model="tiny:long")).status == 200


async def test_adapter_that_is_loaded_later() -> None:
    """The context of a model that the replica did not list at first is learnt when it does."""
    base = {"id": "base", "max_model_len": 1000}
    async with Backend("tiny", max_model_len=1000) as backend:
        backend.script(Fault(body={"data": [base]}), path="/v1/models", times=1)
        adapter = {"data": [base, {"id": "tiny", "parent": "base"}]}
        backend.script(Fault(body=adapter), path="/v1/models", times=None)
        async with roomy(backend) as gateway:
            for _ in range(3):
                await gateway.gateway.health.check()
            assert (await gateway.chat(model="tiny:long")).status == 200
            assert len(asked(backend, "/v1/models")) == 2


@pytest.mark.parametrize("words", [1, 3000, 4200, 8000])
async def test_context_shorter_than_the_tiers(words: int) -> None:
    """The tiers of a family may be longer than a small model's context."""
    async with Backend("tiny", max_model_len=8192) as backend, roomy(backend, model={"tiers": {}}) as gateway:
        for tier in ("direct", "short", "medium", "long"):
            assert (await gateway.chat("word " * words, model=f"tiny:{tier}")).status == 200


@pytest.mark.parametrize(
    ("fields", "least", "cap"),
    [
        ({"min_tokens": 200, "max_tokens": 600}, 200, 200),
        ({"min_tokens": 3000}, 288, 288),  # what the longest tier may generate
        ({"min_tokens": 20}, 20, 32),
    ],
)
async def test_fewest_tokens_fit_the_cap(
    running: Running, backend: Backend, fields: dict[str, Any], least: int, cap: int
) -> None:
    """A backend refuses `min_tokens` above the cap, so the cap rises to it, or it is lowered to the cap."""
    assert (await running.chat(model="tiny:direct", **fields)).status == 200
    sent = backend.requests[-1].json
    assert (sent["min_tokens"], sent["max_completion_tokens"]) == (least, cap)


async def test_fewest_tokens_fit_the_room() -> None:
    """`min_tokens` that fits the model without the gateway fits through it beside a long prompt."""
    async with old() as backend, roomy(backend) as gateway:
        response = await gateway.chat(LONG, model="tiny:direct", min_tokens=800)
        assert (response.status, asked(backend)[-1].json["max_completion_tokens"]) == (200, 800)
        response = await gateway.chat(LONG, model="tiny:direct", min_tokens=3000)
        assert response.status == 200


async def test_contradiction_of_the_client_is_the_backends_to_explain(running: Running) -> None:
    """A client that wants more tokens than it allows hears so, as it would without the gateway."""
    answer = await running.chat(model="tiny:direct", min_tokens=200, max_tokens=100)

    assert answer.status == 400
    assert "min_tokens must be less than or equal to max_tokens" in await answer.text()
