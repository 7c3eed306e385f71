"""Chat completions through the gateway: whole answers, streams, usage, and fields that only vLLM reads."""

import asyncio
import json
import re
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam as Message

from .conftest import TIERS
from .processes import Replica, Server, fetch

HELLO: list[Message] = [{"role": "user", "content": "Hello, who are you?"}]
YES_OR_NO = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}},
    "required": ["yes"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": YES_OR_NO}}


def test_answer(client: OpenAI) -> None:
    """A whole answer has text, a finish reason and usage that adds up, and names its tier."""
    response = client.chat.completions.with_raw_response.create(
        model="tiny:short", messages=HELLO, temperature=0, extra_headers={"x-request-id": "answer-1"}
    )
    answer = response.parse()
    assert answer.id == "chatcmpl-answer-1", "vLLM builds its id from the request id it was sent"
    assert answer.choices[0].finish_reason == "length"
    assert (answer.choices[0].message.content or "").strip().islower()
    assert answer.usage
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert response.headers["x-request-id"] == "answer-1"
    assert response.headers["x-thinkmeter-tier"] == "short"
    assert response.headers["x-thinkmeter-backend"] in {"a", "b"}
    assert response.headers["x-thinkmeter-decision-id"]


def test_adaptive(client: OpenAI) -> None:
    """Without a tier in the name the gateway picks one, and says which and why."""
    response = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO, max_tokens=100)
    assert response.headers["x-thinkmeter-tier"] in {"direct", "short", "medium", "long"}
    assert response.headers["x-thinkmeter-tier-requested"] == "adaptive"
    assert response.headers["x-thinkmeter-reason"]
    assert 0 <= float(response.headers["x-thinkmeter-difficulty"]) <= 1


def test_stream_equals_answer(client: OpenAI) -> None:
    """A greedy stream arrives in many pieces and adds up to exactly the answer without a stream."""
    asked: dict[str, Any] = {"model": "tiny:medium", "messages": HELLO, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message
    reasoning: list[str] = []
    content: list[str] = []
    with client.chat.completions.create(**asked, stream=True) as stream:
        for chunk in stream:
            assert chunk.usage is None
            delta = chunk.choices[0].delta
            reasoning.append(getattr(delta, "reasoning", None) or "")
            content.append(delta.content or "")
    assert "".join(reasoning).encode() == whole.model_extra["reasoning"].encode()
    assert "".join(content).encode() == (whole.content or "").encode()
    assert len([piece for piece in reasoning if piece]) > 10
    assert len([piece for piece in content if piece]) > 10


def test_stream_bytes(gateway: Server, replicas: list[Replica]) -> None:
    """The bytes of a stream are vLLM's own: the same request sent to vLLM directly gives the same stream."""
    asked = {"messages": HELLO, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    applied = {
        "model": "tiny",
        "chat_template_kwargs": {"enable_thinking": True},
        "thinking_token_budget": TIERS["short"]["thinking"],
        "max_completion_tokens": TIERS["short"]["thinking"] + TIERS["short"]["answer"],
    }
    answers = []
    for server, body in ((gateway, asked | {"model": "tiny:short"}), (replicas[0], asked | applied)):
        raw = fetch(
            f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"x-request-id": "same-bytes"}
        )
        answers.append(re.sub(rb'"created":\d+', b'"created":0', raw))
    ours, theirs = (answer.split(b"\n\n") for answer in answers)
    assert ours[0] == theirs[0], "the chunk with the role"
    assert ours[-3:] == theirs[-3:], "the usage chunk, [DONE] and what follows it"
    assert _without_chunk_borders(ours) == _without_chunk_borders(theirs)


def _without_chunk_borders(events: list[bytes]) -> list[bytes]:
    """vLLM merges tokens that a slow reader left waiting, so texts are compared letter by letter."""
    letters = []
    for event in events:
        text = re.search(rb'"(?:reasoning|content)":"((?:[^"\\]|\\.)*)"', event)
        whole = text[1] if text else b""
        pieces = re.findall(rb"\\.|[^\\]", whole) or [b""]
        letters += [event.replace(b'"' + whole + b'"', b'"' + piece + b'"') for piece in pieces[:-1]]
        letters.append(event.replace(b'"' + whole + b'"', b'"' + pieces[-1] + b'"') if whole else event)
    return letters


def test_usage_in_stream(client: OpenAI) -> None:
    """A stream that asks for usage ends with exactly one chunk that has it, equal to the whole answer's."""
    asked: dict[str, Any] = {"model": "tiny:short", "messages": HELLO, "temperature": 0}
    whole = client.chat.completions.create(**asked).usage
    with client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert [bool(chunk.choices) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert whole
    assert chunks[-1].usage
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert getattr(chunks[-1].usage, count) == getattr(whole, count)


def test_no_usage_unasked(gateway: Server) -> None:
    """A stream that does not ask for usage has no trace of it in any chunk, and still ends with [DONE]."""
    body = {"model": "tiny:direct", "messages": HELLO, "temperature": 0, "stream": True}
    raw = fetch(f"{gateway.url}/v1/chat/completions", json.dumps(body).encode())
    assert b'"usage"' not in raw
    assert b'"choices":[]' not in raw
    assert raw.endswith(b"data: [DONE]\n\n")


def test_choices(client: OpenAI) -> None:
    """`n` = 2 gives two choices, each within the tier."""
    answer = client.chat.completions.create(model="tiny:short", messages=HELLO, n=2, seed=1, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert len(choice.message.model_extra["reasoning"]) <= TIERS["short"]["thinking"]


def test_logprobs(client: OpenAI) -> None:
    """Log-probabilities are passed on: one entry a token, with the alternatives asked for."""
    answer = client.chat.completions.create(
        model="tiny:direct", messages=HELLO, temperature=0, logprobs=True, top_logprobs=2, max_tokens=8
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    assert all(len(entry.top_logprobs) == 2 for entry in logprobs.content)


def test_seed_and_stop(client: OpenAI) -> None:
    """`seed` repeats a sampled answer, and `stop` ends it before the given text."""
    asked: dict[str, Any] = {"model": "tiny:direct", "messages": HELLO, "seed": 7, "temperature": 1}
    first, second = (client.chat.completions.create(**asked).choices[0].message.content for _ in range(2))
    assert first == second
    assert first
    stopped = client.chat.completions.create(**asked, stop=[first[3:5]]).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.message.content == first[: first.index(first[3:5])]


def test_fields_only_vllm_knows(client: OpenAI) -> None:
    """Fields the gateway does not read reach vLLM: `ignore_eos`, `min_tokens`, `return_token_ids`."""
    asked: dict[str, Any] = {"model": "tiny:direct", "messages": HELLO, "temperature": 1}

    def tokens(seed: int, **extra: Any) -> int:
        answer = client.chat.completions.create(**asked, seed=seed, extra_body=extra)
        assert answer.usage
        return answer.usage.completion_tokens

    lengths = {seed: tokens(seed) for seed in range(20)}
    ended_early = min(lengths, key=lambda seed: lengths[seed])
    assert lengths[ended_early] < 60
    assert tokens(ended_early, ignore_eos=True) == TIERS["direct"]["answer"]
    assert tokens(ended_early, min_tokens=60) >= 60
    answer = client.chat.completions.create(
        **asked, max_tokens=4, extra_body={"return_token_ids": True, "x_unknown_to_all": {"a": [1]}}
    )
    assert len(answer.choices[0].model_extra["token_ids"]) == 4


def test_response_format(client: OpenAI) -> None:
    """A JSON schema holds for the answer, with and without reasoning before it."""
    for model in ("tiny:direct", "tiny:short"):
        answer = client.chat.completions.create(
            model=model,
            messages=HELLO,
            temperature=0,
            response_format={"type": "json_schema", "json_schema": {"name": "reply", "schema": YES_OR_NO}},
        )
        assert json.loads(answer.choices[0].message.content or "")["yes"] in {True, False}


def test_tools(client: OpenAI) -> None:
    """Tools reach the chat template (the prompt grows), and a demanded call comes back as a tool call."""
    asked: dict[str, Any] = {"model": "tiny:direct", "messages": HELLO, "temperature": 0}
    plain = client.chat.completions.create(**asked)
    offered = client.chat.completions.create(**asked, tools=[TOOL], tool_choice="none")
    assert plain.usage
    assert offered.usage
    assert offered.usage.prompt_tokens > plain.usage.prompt_tokens + 50
    called = client.chat.completions.create(**asked, tools=[TOOL], tool_choice="required")
    assert called.choices[0].message.tool_calls, called
    call = called.choices[0].message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["yes"] in {True, False}


def test_models(client: OpenAI) -> None:
    """The model list offers the model."""
    assert "tiny" in {model.id for model in client.models.list()}


@pytest.mark.parametrize("role", ["system", "developer"])
def test_conversation(client: OpenAI, role: str) -> None:
    """Longer conversations, content in parts and non-ASCII text reach the template whole."""
    messages: Any = [
        {"role": role, "content": "Kürze, 漢字 and 🦉."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "And now?"},
    ]
    answer = client.chat.completions.create(model="tiny:direct", messages=messages, temperature=0)
    assert answer.usage
    # vLLM turns the role `developer` into `system` for templates that do not know it
    written = ["system\nKürze, 漢字 and 🦉.", "user\nHi", "assistant\nyes", "user\nAnd now?"]
    # one token a byte; a turn adds <|im_start|>, <|im_end|> and a newline
    turns = sum(len(turn.encode()) + 3 for turn in written)
    opening = len("assistant\n") + 1 + len(["<think>", "\n\n", "</think>", "\n\n"])
    assert answer.usage.prompt_tokens == turns + opening


async def test_both_replicas_work(async_client: AsyncOpenAI) -> None:
    """Requests that overlap are spread over both replicas."""
    create = async_client.chat.completions.with_raw_response.create
    answers = await asyncio.gather(
        *[create(model="tiny:medium", messages=HELLO, temperature=1, seed=i) for i in range(8)]
    )
    assert {answer.headers["x-thinkmeter-backend"] for answer in answers} == {"a", "b"}
