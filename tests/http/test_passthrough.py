"""The gateway leaves alone what it does not own: bodies, unknown fields, other endpoints, model names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.wire import CHAT, ask, asked, post, post_to
from tests.serving import TIERS, Running, configuration, serving

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": {"type": "object", "additionalProperties": False}},
}
MESSAGES = [
    {"role": "system", "content": "be brief", "name": "boss"},
    {"role": "developer", "content": [{"type": "text", "text": "really"}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "reasoning": "hm",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "rain"},
]
FIELDS: list[dict[str, Any]] = [
    {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    {"response_format": SCHEMA},
    {"response_format": {"type": "json_object"}},
    {"n": 3, "logprobs": True, "top_logprobs": 5, "logit_bias": {"50": -100}},
    {"messages": MESSAGES},
    {"stop": ["a", "\n"], "seed": 7, "user": "u", "temperature": 0.1, "top_p": 1, "presence_penalty": -0.5},
    {"guided_json": {"type": "string"}, "min_p": 0.1, "top_k": 3, "cache_salt": "x", "echo": None},
    {"metadata": {"team": "law", "n": "1"}, "store": False, "service_tier": "flex"},
    {"stop_token_ids": [], "extra": {"deep": [[[[{"a": {}}]]]]}, "\u2603": "\U0001f600", "": 0},
]
OURS = {"chat_template_kwargs": {"enable_thinking": False}, "max_completion_tokens": 32}


async def test_fields_pass(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """The backend gets what the client sent, except for the model's name and the tier's fields."""
    for fields in FIELDS:
        with subtests.test(fields=list(fields)):
            question = ask(**fields)
            answer = await post(running, question)

            assert answer.status == 200
            assert question | {"model": "tiny"} | OURS == asked(backend)[-1].json


@pytest.mark.parametrize(
    ("path", "question"),
    [
        (CHAT, ask(n=2, logprobs=True)),
        ("/v1/completions", {"model": "tiny", "prompt": "a b", "max_tokens": 3, "suffix": "x", "best_of": 1}),
        ("/v1/embeddings", {"model": "tiny", "input": ["a", "b c"], "dimensions": 8, "user": "x"}),
    ],
)
async def test_whole_responses_are_the_backends_bytes(
    running: Running, backend: Backend, path: str, question: dict[str, Any]
) -> None:
    """The client gets the backend's body byte by byte."""
    wire = json.dumps({"choices": [], "usage": None, "\u2603": 1.50, "x": "\u00e9", "y": [1e100]}, indent=1)
    backend.script(Fault(body=wire, content_type="application/json; charset=utf-8"))
    odd = await post(running, question, path=path)
    usual = await post(running, question, path=path, headers={"x-request-id": "same"})
    direct = await post_to(f"{backend.url}{path}", asked(backend)[-1].body, {"x-request-id": "same"})

    assert odd.body == wire.encode()
    assert odd.headers["content-type"] == "application/json; charset=utf-8"
    ours, theirs = usual.json, direct.json
    assert ours.pop("created") <= theirs.pop("created")
    assert ours == theirs


async def test_legacy_prompts(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """Every kind of prompt of the legacy endpoint reaches the backend unchanged."""
    for prompt in ("one two", ["one", "two"], [1, 2, 3], [[1, 2], [3]], ""):
        with subtests.test(prompt=prompt):
            question = {
                "model": "tiny:direct",
                "prompt": prompt,
                "max_tokens": 2,
                "logprobs": 1,
                "echo": False,
            }
            answer = await post(running, question, path="/v1/completions")

            assert answer.status == 200
            assert question | {"model": "tiny"} == asked(backend)[-1].json
            assert answer.headers["x-thinkmeter-tier"] == "direct"


async def test_embedding_inputs(running: Running, backend: Backend, subtests: pytest.Subtests) -> None:
    """An embedding request is forwarded unchanged, without a tier."""
    for value in ("one", ["one", "two"], [1, 2], [[1], [2, 3]]):
        with subtests.test(input=value):
            question = {"model": "tiny", "input": value, "encoding_format": "float", "max_tokens": 9}
            answer = await post(running, question, path="/v1/embeddings")

            assert answer.status == 200
            assert question == asked(backend)[-1].json


async def test_models_are_listed_with_their_tiers(running: Running) -> None:
    """The list names each model and each of its pinned tiers, with their limits."""
    async with running.http.get(f"{running.url}/v1/models") as response:
        listed = await response.json()

    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["tiny", *(f"tiny:{tier}" for tier in TIERS)]
    for card in listed["data"]:
        assert (card["object"], card["owned_by"], card["max_model_len"]) == ("model", "thinkmeter", 32_768)
        assert isinstance(card["created"], int)
        assert card["thinkmeter"]["tiers"] == TIERS
        assert card["thinkmeter"]["tier"] == (card["id"].partition(":")[2] or "adaptive")


async def test_one_model(running: Running) -> None:
    """A model can be retrieved by its name, with or without a tier; another name is a 404."""
    for name in ("tiny", "tiny:long"):
        async with running.http.get(f"{running.url}/v1/models/{name}") as response:
            assert (response.status, (await response.json())["id"]) == (200, name)
    for name in ("nope", "tiny:nope", "nope:long", "tiny:"):
        async with running.http.get(f"{running.url}/v1/models/{name}") as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"], error["param"]) == (404, "model_not_found", "model")


async def test_names_with_slashes_and_colons() -> None:
    """A model's name may contain slashes and other punctuation, also with a pinned tier."""
    async with Backend("org/tiny") as backend:
        replicas = [{"url": f"{backend.url}/v1/"}]
        entry = {"family": "qwen3", "tiers": TIERS, "replicas": replicas, "served_name": "org/tiny"}
        async with serving({"models": {"org/tiny@v1": entry}, "server": {"access_log": False}}) as running:
            async with running.http.get(f"{running.url}/v1/models/org/tiny@v1:short") as response:
                assert (await response.json())["id"] == "org/tiny@v1:short"
            answer = await post(running, ask(model="org/tiny@v1:short"))

        assert (answer.status, answer.headers["x-thinkmeter-tier"]) == (200, "short")
        assert asked(backend)[0].json["model"] == "org/tiny"


async def test_models_of_different_backends() -> None:
    """Each model's requests go to its own replicas and use its own tiers."""
    async with Backend("big") as big, Backend("small") as small:
        models = {
            "big": {"family": "qwen3", "replicas": [{"url": big.url}], "tiers": TIERS},
            "small": {"family": "plain", "replicas": [{"url": small.url}]},
        }
        async with serving({"models": models, "server": {"access_log": False}}) as running:
            for name in ("big:short", "small", "big"):
                assert (await post(running, ask(model=name))).status == 200

        assert [request.json["model"] for request in asked(big)] == ["big", "big"]
        assert [request.json for request in asked(small)] == [ask(model="small")]


async def test_a_dry_run_forwards_nothing(running: Running, backend: Backend) -> None:
    """/v1/route returns the decision and the changes to the request, without asking a backend."""
    question = ask(model="tiny:short", reasoning_effort="high", max_tokens=100, user="x")
    dry = await post(running, question, path="/v1/route")
    assert asked(backend) == []
    wet = await post(running, question)

    decision, request = dry.json["decision"], dry.json["request"]
    assert (decision["tier"], decision["reason"], decision["thinking"], decision["cap"]) == (
        wet.headers["x-thinkmeter-tier"],
        wet.headers["x-thinkmeter-reason"],
        int(wet.headers["x-thinkmeter-thinking-budget"]),
        48,
    )
    kept = {name: value for name, value in question.items() if name not in request["removed"]}
    assert kept | request["set"] == asked(backend)[0].json
    assert request["removed"] == ["max_tokens", "reasoning_effort"]


async def test_a_plain_model_is_a_plain_proxy(backend: Backend) -> None:
    """A model without reasoning gets the client's body with its fields and numbers unchanged."""
    body = b'{ "messages":[{"role":"user","content":"hi"}] ,"model":"tiny", "temperature":0.50, "n" : 1}'
    async with serving(configuration(backend.url, model={"family": "plain", "tiers": {}})) as running:
        await post(running, body)

    sent = asked(backend)[0]
    assert list(json.loads(body)) == list(sent.json)
    assert json.loads(body) == sent.json
    assert b'"temperature":0.50' in sent.body
