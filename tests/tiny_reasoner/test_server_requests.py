"""Requests that the server must accept or refuse, by their fields, their bytes and their paths."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import openai
import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from examples.tiny_reasoner.arrival import Arrival
from gateway.upstream.errors import backend_error
from tests.tiny_reasoner.asking import DIRECT, EASY, asking
from tests.tiny_reasoner.conftest import Server

BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "a long prompt": ({"content": "What is 3+4? " * 400}, "context_length_exceeded", "messages"),
    "an endless word": ({"content": "neighbour" * 2_800}, "context_length_exceeded", "messages"),
    "a book": ({"content": "3+4 " * 200_000}, "context_length_exceeded", "messages"),
    "a long answer": ({"max_tokens": 5_000}, "context_length_exceeded", "max_tokens"),
    "a long answer by its new name": (
        {"max_completion_tokens": 5_000},
        "context_length_exceeded",
        "max_completion_tokens",
    ),
    "no answer": ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    "other characters": ({"content": "3 plus 4 \u00e9"}, "unsupported_characters", "messages"),
    "control tokens": ({"content": "<|im_end|>"}, "control_tokens", "messages"),
    "an unknown field": ({"colour": 1}, "unknown_parameter", "colour"),
    "an unknown field that is null": ({"colour": None}, "unknown_parameter", "colour"),
    "an unknown field with a huge name": ({"x" * 10_000: 1}, "unknown_parameter", "x" * 100 + "\u2026"),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "invalid_value",
        "messages.0.content.0.type",
    ),
    "a number for a text": (
        {"messages": [{"role": "user", "content": 7}]},
        "invalid_value",
        "messages.0.content",
    ),
    "a number to stop at": ({"stop": 7}, "invalid_value", "stop"),
    "a tool": ({"tools": [{"type": "function"}]}, "unsupported_value", "tools"),
    "a penalty": ({"presence_penalty": 0.5}, "unsupported_value", "presence_penalty"),
    "log-probabilities": ({"logprobs": True}, "unsupported_value", "logprobs"),
    "a format": ({"response_format": {"type": "json_object"}}, "unsupported_value", "response_format"),
    "a user who says nothing": ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages.0"),
    "an unknown template field": (
        {"chat_template_kwargs": {"colour": 1}},
        "unknown_parameter",
        "chat_template_kwargs.colour",
    ),
    "a negative budget": ({"thinking_token_budget": -1}, "invalid_value", "thinking_token_budget"),
    "an absurd budget": ({"thinking_token_budget": 10**9}, "invalid_value", "thinking_token_budget"),
    "a hot sample": ({"temperature": 3}, "invalid_value", "temperature"),
    "a huge seed": ({"seed": 2**70}, "invalid_value", "seed"),
    "too many choices": ({"n": 1_000}, "invalid_value", "n"),
    "no messages": ({"messages": []}, "invalid_value", "messages"),
    "empty stops": ({"stop": [""]}, "invalid_value", "stop"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_refused_plainly(server: Server, name: str) -> None:
    """Each kind of bad request is a 400 in OpenAI's shape that names the field; the server goes on."""
    change, code, param = BAD[name]
    content = change.get("content", EASY)
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], **change}
    body.pop("content", None)
    with pytest.raises(openai.BadRequestError) as caught:
        await server.client.post("/chat/completions", body=json.loads(json.dumps(body)), cast_to=object)
    assert caught.value.code == code
    assert caught.value.param == param
    answer = await server.client.chat.completions.create(**asking(EASY, temperature=0, **DIRECT))
    assert answer.choices[0].message.content == "7"


async def test_the_gateway_understands_a_long_prompt(server: Server) -> None:
    """The error for a prompt that is too long keeps its code through the gateway."""
    with pytest.raises(openai.BadRequestError) as caught:
        await server.client.chat.completions.create(**asking("What is 3+4? " * 400))
    told = backend_error(400, caught.value.response.content, retry_after=1)
    assert (told.code, told.param) == (caught.value.code, caught.value.param)
    assert told.code == "context_length_exceeded"


NOTHING_ASKED: dict[str, Any] = {
    "user": "someone",
    "stop": None,
    "n": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logprobs": False,
    "top_logprobs": None,
    "logit_bias": {},
    "tools": None,
    "tool_choice": "none",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "stream_options": None,
    "temperature": 0,
    "max_tokens": None,
    "reasoning_effort": "none",
}


async def test_fields_that_ask_for_nothing_are_taken(server: Server) -> None:
    """Fields with values that ask for nothing are accepted, one by one and all at once."""
    base = {"model": "tiny", "messages": [{"role": "user", "content": EASY}]}
    fields = [NOTHING_ASKED, *({name: value} for name, value in NOTHING_ASKED.items())]
    async with aiohttp.ClientSession() as session:
        for extra in fields:
            async with session.post(f"{server.url}/v1/chat/completions", json=base | extra) as answer:
                assert answer.status == 200, await answer.text()


async def test_an_effort_of_none_switches_thinking_off(server: Server) -> None:
    """`reasoning_effort: none` switches off thinking, unless `enable_thinking` demands it."""
    create = server.client.chat.completions.create
    off = await create(**asking(EASY, temperature=0, reasoning_effort="none"))
    assert off.choices[0].message.content == "7"
    assert off.usage.completion_tokens_details.reasoning_tokens == 0
    on = await create(**asking(EASY, reasoning_effort="none", chat_template_kwargs={"enable_thinking": True}))
    assert on.usage.completion_tokens_details.reasoning_tokens > 0


async def test_a_conversation_goes_on(server: Server) -> None:
    """A client can send back a message as it came, with its nulls, and gets the next answer."""
    first = await server.client.chat.completions.create(**asking(EASY, temperature=0))
    messages = [
        {"role": "developer", "content": "Be exact."},
        {"role": "user", "content": EASY},
        first.choices[0].message.model_dump(),
        {"role": "user", "content": [{"type": "text", "text": EASY}]},
    ]
    again = await server.client.chat.completions.create(
        **{**asking(EASY, temperature=0), "messages": messages}
    )
    assert again.usage.prompt_tokens > first.usage.prompt_tokens + 20


RAW = {
    "no JSON": (b"{", 400, "invalid_json"),
    "a list": (b"[]", 400, "invalid_json"),
    "nothing": (b"", 400, "invalid_json"),
    "not UTF-8": (b'{"model": "\xff"}', 400, "invalid_json"),
    "a lone surrogate": (
        rb'{"model": "tiny", "messages": [{"role": "user", "content": "\ud800"}]}',
        400,
        "unsupported_characters",
    ),
    "endless nesting": (b'{"model": ' + b"[" * 50_000, 400, "invalid_json"),
    "an endless number": (b'{"n": ' + b"9" * 5_000 + b"}", 400, "invalid_json"),
    "a megabyte too much": (b" " * 2_000_000, 413, "request_too_large"),
}


@pytest.mark.parametrize("name", RAW)
async def test_a_broken_body_is_refused_plainly(server: Server, name: str) -> None:
    """A broken body is refused in OpenAI's shape, with a code that says why."""
    body, status, code = RAW[name]
    url, headers = f"{server.url}/v1/chat/completions", {"content-type": "application/json"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url, data=io.BytesIO(body)) as answer,
    ):
        assert answer.status == status
        error = (await answer.json())["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", code)


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    """If the rest of a body does not arrive, reading fails with 408, and the connection must be closed."""

    async def read(_: Scope, receive: Receive, __: Send) -> None:
        while (await receive())["more_body"]:
            pass

    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def silent() -> Message:
        return pieces.pop() if pieces else await asyncio.Future()

    async def unsaid(_: Message) -> None:
        raise AssertionError

    with pytest.raises(HTTPException) as caught:
        await Arrival(read, seconds=0.01)({"type": "http"}, silent, unsaid)
    assert (caught.value.status_code, caught.value.headers) == (408, {"connection": "close"})


async def test_an_unknown_model_and_an_unknown_path_are_404(server: Server) -> None:
    """Both are reported in OpenAI's shape."""
    with pytest.raises(openai.NotFoundError) as caught:
        await server.client.chat.completions.create(**{**asking(), "model": "huge"})
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as caught:
        await server.client.embeddings.create(model="tiny", input="3+4")
    assert caught.value.body["type"] == "invalid_request_error"
