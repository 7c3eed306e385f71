"""The fake backend keeps its promises; without that, no fault test means anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault

CHAT = "/v1/chat/completions"


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with Backend() as running:
        yield running


@pytest.fixture
async def http(backend: Backend) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(backend.url) as session:
        yield session


def ask(**fields: Any) -> dict[str, Any]:
    return {
        "model": "fake",
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 4,
    } | fields


async def stream(http: aiohttp.ClientSession, **fields: Any) -> bytes:
    async with http.post(CHAT, json=ask(stream=True, **fields)) as response:
        return await response.read()


def chunks(body: bytes) -> list[dict[str, Any]]:
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(event) for event in events]


async def raw(backend: Backend, **fields: Any) -> bytes:
    """Everything the backend writes on a fresh connection until it closes it."""
    body = json.dumps(ask(**fields)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_stream_shape(http: aiohttp.ClientSession) -> None:
    """A stream is role, N tokens, finish, usage, [DONE], in compact JSON."""
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
        ({"max_tokens": 40, "thinking_token_budget": 8, "thinks": True, "wish": 3}, (3, 37, "stop")),
        ({"max_tokens": 6, "thinks": True}, (6, 0, "length")),
        ({"max_completion_tokens": 5, "metadata": {"fault": {"tokens": 9}}}, (0, 5, "length")),
    ],
)
async def test_reasoning(
    http: aiohttp.ClientSession, fields: dict[str, Any], expected: tuple[int, int, str]
) -> None:
    """Reasoning is cut by budget and limit, and the stream tells the same story as the whole answer."""
    thinks = {"chat_template_kwargs": {"enable_thinking": True}} if fields.pop("thinks", False) else {}
    if (wish := fields.pop("wish", None)) is not None:
        fields["metadata"] = {"fault": {"reasoning": wish}}
    async with http.post(CHAT, json=ask(**fields, **thinks)) as response:
        choice = (await response.json())["choices"][0]
    words = [len((choice["message"][field] or "").split()) for field in ("reasoning", "content")]
    assert expected == (*words, choice["finish_reason"])
    streamed = chunks(await stream(http, **fields, **thinks))
    for field in ("reasoning", "content"):
        text = "".join(chunk["choices"][0]["delta"].get(field) or "" for chunk in streamed)
        assert (choice["message"][field] or "") == text


async def test_other_endpoints(http: aiohttp.ClientSession) -> None:
    """Models, health, tokenize, embeddings and completions answer as vLLM does."""
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


async def test_scripted_faults_in_order(backend: Backend, http: aiohttp.ClientSession) -> None:
    """Scripted faults are used up in order and leave probes of the health path alone."""
    backend.script(Fault(status=503, headers={"Retry-After": "2"}), times=2)
    backend.script(Fault(status=429, body={"error": "slow down"}))
    seen = []
    for _ in range(4):
        async with http.get("/health") as health, http.post(CHAT, json=ask()) as response:
            assert health.status == 200
            seen.append((response.status, response.headers.get("retry-after")))
            error = await response.json()
    assert seen == [(503, "2"), (503, "2"), (429, None), (200, None)]
    assert "choices" in error
    assert "ServiceUnavailableError" not in error


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault(status=500), 500, '"type":"InternalServerError","param":null,"code":500'),
        (Fault(garbage=9), 200, "\ufffd\ufffd\0{"),
        (Fault(body="<html>", content_type="text/html"), 200, "<html>"),
        (Fault(empty=True), 200, ""),
        (
            Fault(context_too_long=True),
            400,
            "This model's maximum context length is 32768 tokens. However, you",
        ),
        (Fault(usage="spaced"), 200, '"usage": {'),
        (Fault(usage="null"), 200, '"usage":null'),
        (Fault(pad=1_000_000), 200, "x" * 1_000_000),
    ],
)
async def test_other_answers(
    backend: Backend, http: aiohttp.ClientSession, fault: Fault, status: int, text: str
) -> None:
    """Each way of answering wrongly is wrong in the way it says."""
    backend.script(fault)
    async with http.post(CHAT, json=ask()) as response:
        assert status == response.status
        assert text in await response.text(errors="replace")


async def test_missing_usage(backend: Backend, http: aiohttp.ClientSession) -> None:
    """Usage can be left out of streams and whole answers though it was asked for."""
    backend.default = Fault(usage="missing")
    assert b"usage" not in await stream(http, stream_options={"include_usage": True})
    async with http.post(CHAT, json=ask()) as response:
        assert "usage" not in await response.json()


@pytest.mark.parametrize(
    ("fault", "tail"),
    [
        (
            Fault(after=2, end="cut"),
            b'" t1"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n\r\n',
        ),
        (Fault(after=2, end="clean"), b'"token_ids":null}]}\n\n\r\n0\r\n\r\n'),
        (Fault(after=2, end="cut", half_event=True), b"\r\n"),
        (Fault(after=2, error="boom"), b'"code": 500}}\n\ndata: [DONE]\n\n\r\n0\r\n\r\n'),
        (Fault(after=-1, end="cut"), b"\r\n\r\n"),
    ],
)
async def test_broken_streams(backend: Backend, fault: Fault, tail: bytes) -> None:
    """A stream breaks off exactly where and how it was told to."""
    backend.script(fault)
    wire = await raw(backend, stream=True)
    assert wire.endswith(tail)
    assert max(fault.after, 0) == wire.count(b'"content":" t')
    if fault.half_event:
        assert wire.rpartition(b"data: ")[2].count(b"}") < 3


@pytest.mark.parametrize("fault", [Fault(reset=True), Fault(after=1, end="reset")])
async def test_reset(backend: Backend, fault: Fault) -> None:
    """A reset fails at the socket, and the next connection is fine."""
    backend.script(fault)
    with pytest.raises(ConnectionResetError):
        await raw(backend, stream=True)
    assert (await raw(backend)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_refuse(backend: Backend) -> None:
    """A connection closed at accept yields nothing and is no request."""
    backend.script(Fault(refuse=True))
    with contextlib.suppress(ConnectionResetError):
        assert await raw(backend) == b""
    assert backend.requests == []
    assert (await raw(backend)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_down_and_up(backend: Backend) -> None:
    """A backend that is down refuses connections, and comes back on its port."""
    port = backend.port
    await backend.down()
    with pytest.raises(ConnectionRefusedError):
        await raw(backend)
    await backend.up()
    assert port == backend.port
    assert (await raw(backend)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("fields", [{"stream": True}, {}])
async def test_abort_is_seen(backend: Backend, http: aiohttp.ClientSession, fields: dict[str, Any]) -> None:
    """A client that leaves before the end is counted as aborted, and only then."""
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


async def test_rewritten_bytes_say_the_same(backend: Backend, http: aiohttp.ClientSession) -> None:
    """Glued, split, CRLF and commented streams carry the same chunks."""
    expected = [chunk["choices"] for chunk in chunks(await stream(http))]
    for fault in (Fault(glue=5), Fault(split=1), Fault(split=7, glue=3), Fault(crlf=True), Fault(comments=2)):
        backend.script(fault)
        body = await stream(http)
        assert expected == [chunk["choices"] for chunk in chunks(body)]
        assert fault.crlf == (b"\r\n\r\n" in body)
        assert bool(fault.comments) == (b": keep-alive\n\n" in body)


async def test_tool_calls_and_choices(backend: Backend, http: aiohttp.ClientSession) -> None:
    """Tool-call deltas join to JSON arguments; n choices come interleaved."""
    backend.script(Fault(tool_call=True))
    calls = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in chunks(await stream(http))]
    arguments = "".join(call[0]["function"].get("arguments", "") for call in calls if call)
    assert json.loads(arguments) == {"city": "Oslo"}
    tokens = [chunk["choices"][0]["index"] for chunk in chunks(await stream(http, n=2))]
    assert tokens == [0, 1] * 6


@pytest.mark.parametrize(("clamp", "status"), [(False, 400), (True, 200)])
async def test_context_length(clamp: bool, status: int) -> None:
    """Old vLLM refuses prompt + output beyond the context, new vLLM shortens the output."""
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
    usage = {"stream_options": {"include_usage": True}}  # vLLM takes these in streams only
    wrong = [(ask(model="x"), 404), (ask(**usage), 400), (ask(thinking_token_budget=-2), 400)]
    texts = [(json.dumps(body), status) for body, status in wrong]
    for body, status in [*texts, ("{", 400), ('{"model": 5}', 400)]:
        async with http.post(CHAT, data=body) as response:
            assert status == response.status
    async with http.post(CHAT, json=ask(), headers={"x-fault": '{"statsu": 500}'}) as response:
        assert response.status == 400
        assert "statsu" in await response.text()


async def test_alone() -> None:
    """The command line serves in load mode, is driven over HTTP, and stamps its chunks."""
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
