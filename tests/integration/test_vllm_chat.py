"""Chat completions through the gateway: whole responses, streams, usage, and fields that only vLLM reads."""

import asyncio
import json
import re
from itertools import chain
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam as Message

from examples.tiny_reasoner.chat import render_chat
from examples.tiny_reasoner.engine import Engine
from examples.tiny_reasoner.task import grade, read_number

from .abilities import Abilities
from .conftest import TIERS, Puzzle
from .embedded import tokens_of
from .processes import Replica, Server, fetch

SUM: list[Message] = [{"role": "user", "content": "What is 9+3?"}]
YES_OR_NO = {
    "type": "object",
    "properties": {"yes": {"type": "boolean"}},
    "required": ["yes"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": YES_OR_NO}}
NAMED = {"type": "function", "function": {"name": "weather"}}
# JSON may contain white space without end, and this model has never learned to write JSON.
NO_BLANKS = {"frequency_penalty": 2}
_FINISH = re.compile(rb'"finish_reason":"\w+"(,"stop_reason":[^,}]*)?')


def test_answer(client: OpenAI) -> None:
    """A whole response has the right answer, usage that adds up, and the name of its tier."""
    response = client.chat.completions.with_raw_response.create(
        model="tiny:short", messages=SUM, temperature=0, extra_headers={"x-request-id": "answer-1"}
    )
    answer = response.parse()
    assert answer.id == "chatcmpl-answer-1", "vLLM builds its id from the request id it was sent"
    assert answer.choices[0].finish_reason == "stop"
    assert grade(answer.choices[0].message.content or "", "12")
    assert answer.usage
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert response.headers["x-request-id"] == "answer-1"
    assert response.headers["x-thinkmeter-tier"] == "short"
    assert response.headers["x-thinkmeter-backend"] in {"a", "b"}
    assert response.headers["x-thinkmeter-decision-id"]


def test_adaptive(client: OpenAI) -> None:
    """Without a tier in the name, the gateway picks one and says which and why."""
    response = client.chat.completions.with_raw_response.create(model="tiny", messages=SUM, max_tokens=100)
    assert response.headers["x-thinkmeter-tier"] in TIERS
    assert response.headers["x-thinkmeter-tier-requested"] == "adaptive"
    assert response.headers["x-thinkmeter-reason"]
    assert 0 <= float(response.headers["x-thinkmeter-difficulty"]) <= 1


def test_stream_equals_answer(client: OpenAI, hard: Puzzle) -> None:
    """A greedy stream arrives in many chunks, which add up to exactly the whole response."""
    asked: dict[str, Any] = {"model": "tiny:medium", "messages": hard.messages, "temperature": 0}
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
    assert hard.long.reasoning.startswith("".join(reasoning))
    assert read_number("".join(content)) is not None
    assert len([piece for piece in reasoning if piece]) > 1  # vLLM merges what a busy machine reads late


def test_stream_bytes(gateway: Server, replicas: list[Replica], hard: Puzzle) -> None:
    """The gateway passes on a stream byte for byte: the same request to vLLM itself gives the same stream."""
    asked = {
        "messages": hard.messages,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
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
    """vLLM merges chunks that a slow reader left waiting, so texts are compared letter by letter.

    The chunk with the finish reason may be merged too: it then has text, and is compared as if it had none.
    """
    letters = []
    for event in chain.from_iterable(map(_one_text_each, events)):
        text = re.search(rb'"(?:reasoning|content)":"((?:[^"\\]|\\.)+)"', event)
        if not text:
            letters.append(event)
            continue
        running = _FINISH.sub(b'"finish_reason":null', event)
        whole = b'"' + text[1] + b'"'
        letters += [running.replace(whole, b'"%b"' % piece) for piece in re.findall(rb"\\.|[^\\]", text[1])]
        if running != event:
            letters.append(event.replace(whole, b'""'))
    return letters


def _one_text_each(event: bytes) -> list[bytes]:
    """The two chunks from which one with the end of a thought and the beginning of an answer was merged."""
    texts = re.findall(rb'"(?:reasoning|content)":"(?:[^"\\]|\\.)+"', event)
    if len(texts) < 2:
        return [event]
    start, end = event.index(b'"delta":{') + len(b'"delta":{'), event.index(b'},"logprobs"')
    answer, thought = sorted(texts)
    running = _FINISH.sub(b'"finish_reason":null', event[end:])
    return [event[:start] + thought + running, event[:start] + answer + event[end:]]


def test_tokens_of_the_thought(client: OpenAI, abilities: Abilities, hard: Puzzle) -> None:
    """The usage counts the thought where vLLM counts it."""
    answer = client.chat.completions.create(model="tiny:medium", messages=hard.messages, temperature=0)
    assert answer.usage
    details = answer.usage.completion_tokens_details
    if abilities.counts_thoughts:
        assert details
        assert details.reasoning_tokens == tokens_of(answer.choices[0].message.model_extra["reasoning"]) > 0
    else:
        assert details is None


def test_usage_in_stream(client: OpenAI) -> None:
    """A stream with usage has it in exactly one chunk, the last, and it equals that of the whole response."""
    asked: dict[str, Any] = {"model": "tiny:short", "messages": SUM, "temperature": 0}
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
    """A stream that does not ask for usage has none in any chunk, and still ends with [DONE]."""
    body = {"model": "tiny:direct", "messages": SUM, "temperature": 0, "stream": True}
    raw = fetch(f"{gateway.url}/v1/chat/completions", json.dumps(body).encode())
    assert b'"usage"' not in raw
    assert b'"choices":[]' not in raw
    assert raw.endswith(b"data: [DONE]\n\n")


def test_choices(client: OpenAI, hard: Puzzle) -> None:
    """`n` = 2 gives two choices, each cut at the tier's budget and answered."""
    answer = client.chat.completions.create(
        model="tiny:short", messages=hard.messages, n=2, seed=1, temperature=0.7
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(read_number(choice.message.content or "") is not None for choice in answer.choices)
    thoughts = [choice.message.model_extra["reasoning"] for choice in answer.choices]
    assert [tokens_of(thought) for thought in thoughts] == 2 * [TIERS["short"]["thinking"]]


def test_logprobs(client: OpenAI) -> None:
    """Log-probabilities are passed on: one entry per token, with as many alternatives as requested."""
    answer = client.chat.completions.create(
        model="tiny:direct", messages=SUM, temperature=0, logprobs=True, top_logprobs=2, max_tokens=2
    )
    assert answer.choices[0].message.content == "12"
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert [entry.token for entry in logprobs.content] == ["1", "2"]
    assert all(len(entry.top_logprobs) == 2 for entry in logprobs.content)


def test_seed(client: OpenAI, hard: Puzzle) -> None:
    """The same `seed` repeats a sampled thought and answer; other seeds give other samples."""
    asked: dict[str, Any] = {"model": "tiny:medium", "messages": hard.messages, "temperature": 1.5}

    def said(seed: int) -> tuple[str | None, str | None]:
        message = client.chat.completions.create(**asked, seed=seed).choices[0].message
        return message.model_extra["reasoning"], message.content

    assert said(7) == said(7)
    assert len({said(seed) for seed in range(8)}) > 1


def test_stop(client: OpenAI) -> None:
    """`stop` ends an answer before the given text."""
    stopped = client.chat.completions.create(model="tiny:direct", messages=SUM, temperature=0, stop=["2"])
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == "1"


def test_fields_only_vllm_knows(client: OpenAI) -> None:
    """Fields the gateway does not read reach vLLM: `ignore_eos`, `min_tokens`, `return_token_ids`."""
    asked: dict[str, Any] = {"model": "tiny:direct", "messages": SUM, "temperature": 0}

    def tokens(**extra: Any) -> int:
        answer = client.chat.completions.create(**asked, extra_body=extra)
        assert answer.usage
        return answer.usage.completion_tokens

    assert tokens() == 3
    assert tokens(ignore_eos=True) == TIERS["direct"]["answer"]
    assert tokens(min_tokens=10) >= 10
    answer = client.chat.completions.create(
        **asked, max_tokens=2, extra_body={"return_token_ids": True, "x_unknown_to_all": {"a": [1]}}
    )
    assert len(answer.choices[0].model_extra["token_ids"]) == 2


def test_response_format(client: OpenAI) -> None:
    """The answer follows a JSON schema, with and without reasoning: 12 has too few digits for it."""
    schema = {"type": "integer", "minimum": 100, "maximum": 999}
    for model in ("tiny:direct", "tiny:short"):
        answer = client.chat.completions.create(
            model=model,
            messages=SUM,
            temperature=0,
            response_format={"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}},
        )
        assert 100 <= json.loads(answer.choices[0].message.content or "") <= 999


def test_tools(client: OpenAI) -> None:
    """With `tool_choice: none` the answer is as usual; a call that must be made comes back as a tool call."""
    asked: dict[str, Any] = {"model": "tools:direct", "messages": SUM, "temperature": 0, "tools": [TOOL]}
    offered = client.chat.completions.create(**asked, tool_choice="none")
    assert offered.choices[0].message.content == "12"
    called = client.chat.completions.create(**asked, **NO_BLANKS, tool_choice=NAMED)
    assert called.choices[0].message.tool_calls, called
    call = called.choices[0].message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["yes"] in {True, False}


def test_models(client: OpenAI) -> None:
    """The model list offers the model."""
    assert "tiny" in {model.id for model in client.models.list()}


@pytest.mark.parametrize("role", ["system", "developer"])
def test_conversation(client: OpenAI, engine: Engine, role: str) -> None:
    """Longer conversations and content in parts reach the template completely: the prompt's tokens agree."""
    messages: Any = [
        {"role": role, "content": "Kürze, 漢字 and 🦉."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "3+4?"}]},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "What is 9+3?"},
    ]
    answer = client.chat.completions.create(model="tiny:direct", messages=messages, temperature=0)
    assert answer.usage
    # vLLM turns the role `developer` into `system` if the template lacks it
    turns = [("user", "What is 3+4?"), ("assistant", "7"), ("user", "What is 9+3?")]
    ascii_only = [("system", "K, and."), *turns]
    least = len(engine.tokenizer.encode(render_chat(ascii_only, thinking=False)))
    assert least < answer.usage.prompt_tokens <= least + len("Kürze, 漢字 and 🦉.".encode())


async def test_both_replicas_work(async_client: AsyncOpenAI, hard: Puzzle) -> None:
    """Concurrent requests are spread over both replicas."""
    create = async_client.chat.completions.with_raw_response.create
    answers = await asyncio.gather(
        *[create(model="tiny:medium", messages=hard.messages, temperature=0.7, seed=i) for i in range(8)]
    )
    assert {answer.headers["x-thinkmeter-backend"] for answer in answers} == {"a", "b"}
