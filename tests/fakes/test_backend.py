"""The fake backend responds as vLLM does, because every test that uses it relies on that."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiohttp
import pytest

from tests.fakes.backend import Backend
from tests.fakes.client import CHAT, ask, chunks, stream
from tests.fakes.fault import Fault


async def test_stream_shape(http: aiohttp.ClientSession) -> None:
    """A stream consists of role, N tokens, finish reason, usage and [DONE], in compact JSON."""
    body = await stream(http, stream_options={"include_usage": True})
    role, *tokens, finish, usage = chunks(body)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["delta"]["content"] for chunk in tokens] == [" t0", " t1", " t2", " t3"]
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert (
        usage["choices"],
        usage["usage"]["prompt_tokens"],
        usage["usage"]["completion_tokens"],
    ) == ([], 3, 4)
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert b'": ' not in body


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (0, 4, "stop")),
        ({"max_tokens": 40, "thinking_token_budget": 8, "thinks": True}, (8, 32, "stop")),
        ({"max_tokens": 40, "thinking_token_budget": 8, "thinks": True, "reasons": 3}, (3, 37, "stop")),
        ({"max_tokens": 6, "thinks": True}, (6, 0, "length")),
        ({"max_completion_tokens": 5, "metadata": {"fault": {"tokens": 9}}}, (0, 5, "length")),
    ],
)
async def test_reasoning(
    http: aiohttp.ClientSession, fields: dict[str, Any], expected: tuple[int, int, str]
) -> None:
    """Budget and limit cut the reasoning, and a stream says the same as a whole response."""
    thinks = {"chat_template_kwargs": {"enable_thinking": True}} if fields.pop("thinks", False) else {}
    if (reasons := fields.pop("reasons", None)) is not None:
        fields["metadata"] = {"fault": {"reasoning": reasons}}
    async with http.post(CHAT, json=ask(**fields, **thinks)) as response:
        choice = (await response.json())["choices"][0]
    words = [len((choice["message"][field] or "").split()) for field in ("reasoning", "content")]
    assert expected == (*words, choice["finish_reason"])
    streamed = chunks(await stream(http, **fields, **thinks))
    for field in ("reasoning", "content"):
        text = "".join(chunk["choices"][0]["delta"].get(field) or "" for chunk in streamed)
        assert (choice["message"][field] or "") == text


async def test_other_endpoints(http: aiohttp.ClientSession) -> None:
    """Models, health, tokenize, embeddings and completions respond as vLLM does."""
    async with http.get("/v1/models") as models, http.get("/health") as health:
        assert (await models.json())["data"][0]["max_model_len"] == 32_768
        assert (health.status, await health.read()) == (200, b"")
    async with http.post("/tokenize", json={"model": "fake", "prompt": "a b"}) as response:
        assert (await response.json())["count"] == 2
    async with http.post("/v1/embeddings", json={"model": "fake", "input": ["a", "b c"]}) as response:
        assert len((await response.json())["data"]) == 2
    async with http.post(
        "/v1/completions", json={"model": "fake", "prompt": "a", "max_tokens": 2}
    ) as response:
        assert (await response.json())["choices"][0]["text"] == " t0 t1"


@pytest.mark.parametrize("fields", [{"stream": True}, {}])
async def test_abort_is_seen(backend: Backend, http: aiohttp.ClientSession, fields: dict[str, Any]) -> None:
    """A request counts as aborted if and only if its client left before the end."""
    backend.script(Fault(after=1, end="stall"))
    leaving = asyncio.create_task(http.post(CHAT, json=ask(**fields)).__aenter__())
    await backend.wait_until(lambda b: b.in_flight == 1)
    response = await leaving
    assert backend.aborted == []
    response.close()
    await backend.wait_until(lambda b: b.aborted)
    assert (backend.in_flight, backend.aborted[0].outcome) == (0, "aborted")
    async with http.post(CHAT, json=ask(**fields)) as response:
        await response.read()
    assert [request.outcome for request in backend.requests] == ["aborted", "done"]


async def test_tool_calls_and_choices(backend: Backend, http: aiohttp.ClientSession) -> None:
    """The deltas of a tool call join to JSON arguments, and the chunks of n choices are interleaved."""
    backend.script(Fault(tool_call=True))
    calls = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in chunks(await stream(http))]
    arguments = "".join(call[0]["function"].get("arguments", "") for call in calls if call)
    assert json.loads(arguments) == {"city": "Oslo"}
    tokens = [chunk["choices"][0]["index"] for chunk in chunks(await stream(http, n=2))]
    assert tokens == [0, 1] * 6


@pytest.mark.parametrize(("clamp", "status"), [(False, 400), (True, 200)])
async def test_context_length(clamp: bool, status: int) -> None:
    """If prompt and output exceed the context, old vLLM refuses and new vLLM shortens the output."""
    async with Backend(max_model_len=10, clamp=clamp) as backend, aiohttp.ClientSession(backend.url) as http:
        async with http.post(CHAT, json=ask(max_tokens=7)) as fitting:
            assert fitting.status == 200
        async with http.post(CHAT, json=ask(max_tokens=8)) as response:
            assert status == response.status
            answer = await response.json()
        async with http.post(CHAT, json=ask(max_tokens=11)) as response:
            assert response.status == 400
    if clamp:
        assert answer["usage"]["completion_tokens"] == 7
    else:
        assert (
            "requested 8 output tokens and your prompt contains 3 input tokens" in answer["error"]["message"]
        )


async def test_wrong_requests(http: aiohttp.ClientSession) -> None:
    """Unknown models, broken JSON and unknown fault fields are refused, never ignored."""
    usage = {"stream_options": {"include_usage": True}}  # vLLM accepts these for streams only
    wrong = [(ask(model="x"), 404), (ask(**usage), 400), (ask(thinking_token_budget=-2), 400)]
    texts = [(json.dumps(body), status) for body, status in wrong]
    for body, status in [*texts, ("{", 400), ('{"model": 5}', 400)]:
        async with http.post(CHAT, data=body) as response:
            assert status == response.status
    async with http.post(CHAT, json=ask(), headers={"x-fault": '{"statsu": 500}'}) as response:
        assert response.status == 400
        assert "statsu" in await response.text()


async def test_alone() -> None:
    """The command serves in load mode, can be scripted over HTTP, and puts the time into its chunks."""
    command = [sys.executable, "-m", "tests.fakes.backend", "--port", "0", "--light"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[-1]
        async with aiohttp.ClientSession(url) as http:
            first, second = await stream(http), await stream(http)
            assert first == second
            assert b" t3" in first
            async with http.post("/fake/default", json={"stamp": True, "tokens": 2}) as response:
                assert response.status == 200
            assert (await stream(http)).count(b'"content":"@') == 2
    finally:
        process.terminate()
        await process.wait()
