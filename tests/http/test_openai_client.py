"""The official client works with the gateway as it does with OpenAI or vLLM, errors included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.http.test_passthrough import MESSAGES, OURS, SCHEMA, TOOL
from tests.http.wire import ask, asked
from tests.serving import Running, configuration, serving


@pytest.fixture
async def client(running: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, connected to the gateway."""
    async with running.client() as opened:
        yield opened


async def test_a_whole_response(client: openai.AsyncOpenAI) -> None:
    """The client parses a chat completion with its reasoning and usage."""
    answer = await client.chat.completions.create(**ask("a b c", model="tiny:short"))

    assert answer.choices[0].message.content == "".join(f" t{index}" for index in range(32))
    assert answer.choices[0].message.model_dump()["reasoning"].split()[-1] == "r15"
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 48)
    assert answer.usage.completion_tokens_details.reasoning_tokens == 16


async def test_a_stream(client: openai.AsyncOpenAI) -> None:
    """Every chunk of a stream has a choice if usage was not requested."""
    stream = await client.chat.completions.create(**ask(model="tiny:short"), stream=True)
    chunks: list[ChatCompletionChunk] = [chunk async for chunk in stream]

    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).split()[-1] == "t31"
    reasoning = [chunk.choices[0].delta.model_dump().get("reasoning") for chunk in chunks]
    assert [text for text in reasoning if text] == [f" r{index}" for index in range(16)]
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_stream_with_usage(client: openai.AsyncOpenAI) -> None:
    """A client that requests usage gets it in the last chunk."""
    stream = await client.chat.completions.create(
        **ask("a b c"), stream=True, stream_options={"include_usage": True}
    )
    *_, last = [chunk async for chunk in stream]

    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 32)


async def test_the_streaming_helper(client: openai.AsyncOpenAI) -> None:
    """The client's helper assembles a stream into a completion."""
    async with client.chat.completions.stream(**ask()) as stream:
        answer = await stream.get_final_completion()

    assert (answer.choices[0].message.content or "").split()[0] == "t0"


async def test_raw_responses_show_our_headers(client: openai.AsyncOpenAI) -> None:
    """A client can read the tier from the headers, and the request id from the client library's property."""
    raw = await client.chat.completions.with_raw_response.create(
        **ask(model="tiny:medium"), extra_headers={"X-Request-Id": "mine"}
    )

    assert raw.headers["x-thinkmeter-tier"] == "medium"
    assert (raw.request_id, raw.parse()._request_id) == ("mine", "mine")


@pytest.mark.parametrize("stream", [False, True])
async def test_tools(client: openai.AsyncOpenAI, backend: Backend, stream: bool) -> None:
    """Tools reach the backend unchanged, and the tool call comes back complete."""
    backend.script(Fault(tool_call=True, tokens=3))
    options: Any = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    if stream:
        async with client.chat.completions.stream(**ask(), **options) as streamed:
            answer: Any = await streamed.get_final_completion()
    else:
        answer = await client.chat.completions.create(**ask(), **options)

    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    assert {name: asked(backend)[0].json[name] for name in options} == options


async def test_structured_output(client: openai.AsyncOpenAI, backend: Backend) -> None:
    """A response format, given as a schema or as a class, reaches the backend unchanged."""

    class City(BaseModel):
        name: str

    message = {"role": "assistant", "content": '{"name":"Oslo"}'}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    backend.script(Fault(body={"id": "1", "object": "chat.completion", "model": "tiny", "choices": [choice]}))
    parsed = await client.chat.completions.parse(**ask(), response_format=City)
    await client.chat.completions.create(**ask(), response_format=SCHEMA)

    assert parsed.choices[0].message.parsed == City(name="Oslo")
    sent = [request.json["response_format"] for request in asked(backend)]
    assert sent[0]["json_schema"]["schema"]["properties"] == {"name": {"title": "Name", "type": "string"}}
    assert sent[1] == SCHEMA


async def test_choices_and_logprobs(client: openai.AsyncOpenAI, backend: Backend) -> None:
    """Several choices with log probabilities come back as requested."""
    answer = await client.chat.completions.create(**ask(), n=3, logprobs=True, top_logprobs=2)

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.logprobs and choice.logprobs.content for choice in answer.choices)
    sent = asked(backend)[0].json
    assert (sent["n"], sent["logprobs"], sent["top_logprobs"]) == (3, True, 2)


async def test_messages_of_every_kind(client: openai.AsyncOpenAI, backend: Backend) -> None:
    """Images, audio, tool results and reasoning of earlier turns reach the backend unchanged."""
    await client.chat.completions.create(**ask(messages=MESSAGES))

    assert ask(messages=MESSAGES, model="tiny") | OURS == asked(backend)[0].json


async def test_vllm_options(client: openai.AsyncOpenAI, backend: Backend) -> None:
    """vLLM's options in `extra_body` are forwarded, and a thinking budget is a ceiling."""
    extra = {"top_k": 5, "thinking_token_budget": 10, "chat_template_kwargs": {"style": "x"}}
    await client.chat.completions.create(**ask(model="tiny:long"), extra_body=extra)

    sent = asked(backend)[0].json
    assert (sent["top_k"], sent["thinking_token_budget"]) == (5, 10)
    assert sent["chat_template_kwargs"] == {"style": "x", "enable_thinking": True}


async def test_reasoning_effort(client: openai.AsyncOpenAI) -> None:
    """The client's `reasoning_effort` is a ceiling."""
    efforts: dict[Any, str] = {"none": "direct", "low": "short", "medium": "medium"}
    for effort, tier in efforts.items():
        raw = await client.chat.completions.with_raw_response.create(
            **ask(model="tiny:long"), reasoning_effort=effort
        )

        assert raw.headers["x-thinkmeter-tier"] == tier
        assert raw.headers["x-thinkmeter-reason"] == "client_ceiling"


async def test_legacy_completions(client: openai.AsyncOpenAI) -> None:
    """Legacy completions work, streamed or not."""
    whole = await client.completions.create(model="tiny", prompt="a", max_tokens=3)
    stream = await client.completions.create(model="tiny", prompt="a", max_tokens=3, stream=True)
    text = "".join([chunk.choices[0].text async for chunk in stream])

    assert whole.choices[0].text == text == " t0 t1 t2"


async def test_embeddings(client: openai.AsyncOpenAI) -> None:
    """Every input gets an embedding."""
    answer = await client.embeddings.create(model="tiny", input=["a", "b c"], encoding_format="float")

    assert [len(item.embedding) for item in answer.data] == [8, 8]
    assert answer.usage.prompt_tokens == 3


async def test_models(client: openai.AsyncOpenAI) -> None:
    """Models can be listed and retrieved, pinned tiers included."""
    names = [model.id async for model in client.models.list()]
    assert names == ["tiny", "tiny:direct", "tiny:short", "tiny:medium", "tiny:long"]
    for name in names:
        assert (await client.models.retrieve(name)).id == name
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("tiny:huge")


ERRORS = {
    "backend 400": (Fault(status=400, message="n is wrong"), openai.BadRequestError, "invalid_value"),
    "too long": (Fault(context_too_long=True), openai.BadRequestError, "context_length_exceeded"),
    "backend 401": (Fault(status=401), openai.InternalServerError, "backend_error"),
    "backend 404": (Fault(status=404), openai.InternalServerError, "backend_error"),
    "backend 429": (Fault(status=429), openai.RateLimitError, "rate_limit_exceeded"),
    "backend 500": (Fault(status=500), openai.InternalServerError, "backend_error"),
    "backend 503": (Fault(status=503), openai.InternalServerError, "no_backend"),
    "garbage": (Fault(garbage=99, content_type="text/plain"), openai.InternalServerError, "backend_error"),
}


@pytest.mark.parametrize("stream", [False, True])
async def test_backend_errors_map(backend: Backend, subtests: pytest.Subtests, stream: bool) -> None:
    """A backend's error becomes the exception that a user of the client expects."""
    settings = configuration(backend.url, breaker={"failures": 100})
    async with serving(settings) as running, running.client() as client:
        for name, (fault, kind, code) in ERRORS.items():
            with subtests.test(name):
                backend.script(fault)
                with pytest.raises(openai.APIStatusError) as raised:
                    await client.chat.completions.create(**ask(), stream=stream)

                assert type(raised.value) is kind
                assert raised.value.code == code
                assert raised.value.request_id


WRONG: dict[str, tuple[dict[str, Any], type[openai.APIStatusError], str, str | None]] = {
    "unknown model": ({"model": "nope"}, openai.NotFoundError, "model_not_found", "model"),
    "unknown tier": ({"model": "tiny:huge"}, openai.NotFoundError, "model_not_found", "model"),
    "messages": ({"messages": "hi"}, openai.BadRequestError, "invalid_value", "messages"),
    "max_tokens": ({"max_tokens": 0}, openai.BadRequestError, "invalid_value", "max_tokens"),
    "stream": ({"stream": "perhaps"}, openai.BadRequestError, "invalid_value", "stream"),
}


async def test_wrong_requests_map(
    client: openai.AsyncOpenAI, backend: Backend, subtests: pytest.Subtests
) -> None:
    """The gateway refuses an invalid request itself, and names the invalid field."""
    for name, (fields, kind, code, param) in WRONG.items():
        with subtests.test(name):
            with pytest.raises(kind) as raised:
                await client.post("/chat/completions", body=ask(**fields), cast_to=object)

            assert (raised.value.code, raised.value.param) == (code, param)
            assert raised.value.type == "invalid_request_error"
    assert asked(backend) == []


async def test_keys_map(backend: Backend) -> None:
    """A wrong key raises AuthenticationError, a model that the key may not use PermissionDeniedError."""
    keys = [{"name": "one", "key": "sk-one"}, {"name": "two", "key": "sk-two", "models": []}]
    async with serving(configuration(backend.url, keys=keys)) as running:
        for key, kind in (
            ("sk-none", openai.AuthenticationError),
            ("sk-two", openai.PermissionDeniedError),
        ):
            async with running.client(key) as client:
                with pytest.raises(kind):
                    await client.chat.completions.create(**ask())
        async with running.client("sk-one") as client:
            assert (await client.chat.completions.create(**ask())).choices

    assert len(asked(backend)) == 1


async def test_the_client_times_out(running: Running, backend: Backend) -> None:
    """A client with a short timeout raises APITimeoutError, and the backend is told to stop."""
    backend.script(Fault(after=1, end="stall"))
    async with running.client(timeout=0.3) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(**ask())
        await backend.wait_until(lambda b: b.aborted)


async def test_the_clients_own_retries(running: Running, backend: Backend) -> None:
    """The client understands the gateway's statuses and Retry-After, and retries by itself."""
    backend.script(Fault(status=429, headers={"Retry-After": "0"}))
    async with running.client() as client:
        answer = await client.with_options(max_retries=1).chat.completions.create(**ask())

    assert answer.choices
    assert len(asked(backend)) == 2


async def test_many_clients_at_once(running: Running, backend: Backend) -> None:
    """Of fifty concurrent requests, streaming and not, each gets its own response."""
    async with running.client() as client:

        async def complete(number: int) -> None:
            limit = number % 30 + 1
            if number % 2:
                stream = await client.chat.completions.create(**ask(), max_tokens=limit, stream=True)
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            else:
                answer = await client.chat.completions.create(**ask(), max_tokens=limit)
                text = answer.choices[0].message.content or ""
            assert text == "".join(f" t{index}" for index in range(limit))

        await asyncio.gather(*map(complete, range(50)))
    assert len(asked(backend)) == 50
