"""vLLM's errors arrive as OpenAI error objects, with codes that a client can act on."""

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam as Message

from examples.tiny_reasoner.chat import render
from examples.tiny_reasoner.engine import Engine

from .processes import CONTEXT

HELLO: list[Message] = [{"role": "user", "content": "What is 3+4?"}]
DIGITS = "7" * CONTEXT  # one token per digit
TOO_LONG: list[Message] = [{"role": "user", "content": DIGITS}]


def assert_error_object(error: openai.APIStatusError, code: str) -> None:
    assert isinstance(error.body, dict)
    assert {"message", "type", "param", "code"} <= error.body.keys()
    assert error.body["code"] == code
    assert "127.0.0.1" not in error.message


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_prompt_too_long(client: OpenAI, stream: bool) -> None:
    """A prompt that does not fit the model is a 400 `context_length_exceeded`, streamed or not."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny:direct", messages=TOO_LONG, stream=stream)
    assert_error_object(caught.value, "context_length_exceeded")
    assert str(CONTEXT) in caught.value.message


def test_completion_prompt_too_long(client: OpenAI) -> None:
    """The same for legacy completions."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt=DIGITS + "7", max_tokens=4)
    assert_error_object(caught.value, "context_length_exceeded")


def test_prompt_that_just_fits(client: OpenAI, engine: Engine) -> None:
    """If a prompt leaves less room than the tier may use, the completion gets the room that is left.

    A token of it may be spared, in case the prompt is longer than it was counted.
    """
    around = len(engine.tokenizer.encode(render("", thinking=False)))
    answer = client.chat.completions.create(
        model="tiny:direct",
        messages=[{"role": "user", "content": "7" * (CONTEXT - 6 - around)}],
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    assert answer.usage
    assert answer.usage.completion_tokens in (5, 6)
    assert answer.usage.total_tokens == CONTEXT - 6 + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("model", ["no-such-model", "tiny:no-such-tier"])
def test_unknown_model(client: OpenAI, model: str) -> None:
    """A model or tier that is not offered is a 404 `model_not_found`."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=model, messages=HELLO)
    assert_error_object(caught.value, "model_not_found")


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"top_p": 7},
        {"temperature": 0, "n": 3},
        {"logit_bias": {"5": "much"}},
        {"messages": []},
    ],
    ids=["temperature", "top_p", "n", "logit_bias", "messages"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_value_vllm_refuses(client: OpenAI, wrong: dict[str, Any], stream: bool) -> None:
    """A value that only vLLM can check is a 400 with vLLM's explanation."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            **{"model": "tiny:direct", "messages": HELLO, "stream": stream} | wrong
        )
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "invalid_request_error"
    assert caught.value.body["message"]


def test_embeddings(client: OpenAI) -> None:
    """A model without embeddings gives an error object, although the body of vLLM's 404 is none."""
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(model="tiny", input="hello")
    assert isinstance(caught.value.body, dict)
    assert {"message", "type", "param", "code"} <= caught.value.body.keys()


def test_no_error_leaves_a_mark(client: OpenAI) -> None:
    """After all these errors the next request is served."""
    for _ in range(10):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="tiny:direct", messages=HELLO, temperature=-1)
    assert client.chat.completions.create(model="tiny:direct", messages=HELLO).choices[0].message.content
