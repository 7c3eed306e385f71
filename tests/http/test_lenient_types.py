"""Values of another type than the API's, which bare vLLM takes: what the backend gets, what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.backend import Backend
from tests.http.governed import governed
from tests.http.wire import ask, asked, post
from tests.redis import RealRedis, used
from tests.serving import Running, configuration, serving

SERVED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": "20"}, {"max_completion_tokens": 20}),
    ({"max_tokens": 20.0, "n": "1"}, {"max_completion_tokens": 20, "n": 1}),
    ({"max_tokens": 900, "max_completion_tokens": "10"}, {"max_completion_tokens": 10}),
    ({"stream": 0}, {"stream": False}),
    ({"stream": "false", "stream_options": None}, {"stream": False}),
    ({"best_of": "many"}, {}),
    ({"thinking": True}, {}),
    ({"thinking": {"type": "auto"}}, {}),
    ({"reasoning": "low"}, {"thinking_token_budget": 16}),
    ({"reasoning_effort": ""}, {}),
    ({"reasoning": {"max_tokens": "8"}}, {"thinking_token_budget": 8}),
    ({"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ({"enable_thinking": True, "thinking_budget": 8.0}, {"thinking_token_budget": 8}),
    ({"chat_template_kwargs": "x"}, {"chat_template_kwargs": {"enable_thinking": True}}),
    ({"metadata": "x"}, {"metadata": "x"}),
]
DIALECTS = {"reasoning", "thinking", "reasoning_effort", "enable_thinking", "thinking_budget", "best_of"}


async def test_what_vllm_takes_is_served(
    running: Running, backend: Backend, subtests: pytest.Subtests
) -> None:
    """The request is served, and the backend gets what was understood in the API's own types."""
    for fields, sent in SERVED:
        with subtests.test(fields=fields):
            answer = await post(running, ask(**{"model": "tiny:long"} | fields))
            body = asked(backend)[-1].json

            assert answer.status == 200, answer.body
            assert body | sent == body
            assert not DIALECTS & body.keys()


async def test_a_word_streams(running: Running, backend: Backend) -> None:
    """`stream: "true"` streams, with the usage that the client asks for."""
    answer = await post(running, ask(stream="true", stream_options={"include_usage": "1"}))

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert b'"usage":{' in answer.body.replace(b" ", b"")
    assert asked(backend)[-1].json["stream"] is True


async def test_request_without_a_model(running: Running, backend: Backend) -> None:
    """A request that names no model gets the only one, as it would from a vLLM server."""
    for body in ({"messages": ask()["messages"]}, ask(model=None), ask(model="")):
        answer = await post(running, body)

        assert answer.status == 200, answer.body
        assert asked(backend)[-1].json["model"] == "tiny"


async def test_request_without_one_of_two_models(backend: Backend) -> None:
    """Among several models, a request has to name one."""
    settings = configuration(backend.url)
    async with serving(
        settings | {"models": settings["models"] | {"two": settings["models"]["tiny"]}}
    ) as gateway:
        answer = await post(gateway, {"messages": ask()["messages"]})

    assert answer.status == 400
    assert answer.json["error"]["param"] == "model"


async def test_large_body(running: Running, backend: Backend) -> None:
    """A large body is read as leniently as a small one."""
    answer = await post(running, ask("x" * 300_000, model="tiny:long", max_tokens="20", n=2.0, metadata=[]))
    body = asked(backend)[-1].json

    assert answer.status == 200, answer.body
    assert (body["max_completion_tokens"], body["n"]) == (20, 2)
    assert len(body["messages"][0]["content"]) == 300_000


async def test_dry_run(running: Running) -> None:
    """A dry run reads a request as leniently as the request itself is read."""
    answer = await post(running, ask(model="tiny:long", max_tokens="20"), path="/v1/route")

    assert answer.status == 200, answer.body
    assert answer.json["request"]["set"]["max_completion_tokens"] == 20


BUDGETED: list[tuple[str, int]] = [
    ('"n": "3", "max_tokens": "10"', 30),
    ('"n": 3.0, "max_tokens": 10.0', 30),
    ('"n": 1, "n": 3, "max_tokens": 10', 30),
    ('"n": 1, "\\u006e": "3", "max_tokens": 10', 30),
    ('"best_of": "two", "max_tokens": "1e1"', 0),  # no whole number: refused, and nothing is reserved
    ('"max_tokens": 1e1', 10),
]


async def test_budget_counts_what_was_understood(
    backend: Backend, redis_server: RealRedis, subtests: pytest.Subtests
) -> None:
    """What is reserved is what the backend is asked for."""
    head = b'{"model":"tiny:direct","messages":[{"role":"user","content":"hi"}],'
    async with governed(backend, redis_server) as gateway:
        for fields, tokens in BUDGETED:
            with subtests.test(fields):
                before = len(gateway.records)
                answer = await post(gateway, head + fields.encode() + b"}")
                record = (await gateway.recorded(before + 1))[-1]

                assert answer.status == (200 if tokens else 400)
                if tokens:
                    assert record.reservation
                    assert record.reservation.max_tokens * record.choices == tokens
                    assert len(answer.json["choices"]) == record.choices


async def test_scoring_a_prompt(backend: Backend, redis_server: RealRedis) -> None:
    """`echo` with `max_tokens: 0` scores a prompt: it is served as it is, and spends no completion tokens."""
    async with governed(backend, redis_server, tokens=20) as gateway:
        body = {"model": "tiny", "prompt": "What is 3+4?", "echo": True, "max_tokens": 0, "logprobs": 1}
        for _ in range(3):
            answer = await post(gateway, body, path="/v1/completions")
            assert answer.status == 200, answer.body
            assert backend.requests[-1].json == body

        assert await used(gateway) == (0, 0)
