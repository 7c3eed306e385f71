"""A client's stop strings end the answer of the tiny reasoner. With vLLM alone they end its thought."""

import json
from typing import Any

import pytest
from openai import OpenAI

from .abilities import Abilities
from .conftest import TIERS, Puzzle
from .processes import Replica, fetch


def said(client: OpenAI, puzzle: Puzzle, *, stream: bool, **fields: Any) -> list[tuple[str, str, str, Any]]:
    """Of every choice at `long`: its thought, its answer, why it ended, and the string that ended it."""
    asked: dict[str, Any] = {"model": "tiny:long", "messages": puzzle.messages, "temperature": 0} | fields
    if not stream:
        choices = client.chat.completions.create(**asked).choices
        parts = [(one.index, one.message, one) for one in choices]
    else:
        with client.chat.completions.create(**asked, stream=True) as chunks:
            parts = [(one.index, one.delta, one) for chunk in chunks for one in chunk.choices]
    found = [("", "", "", None)] * fields.get("n", 1)
    for index, message, choice in parts:
        thought, answer, finish, string = found[index]
        extra, ended = message.model_extra or {}, choice.model_extra or {}
        found[index] = (
            thought + (extra.get("reasoning") or ""),
            answer + (message.content or ""),
            choice.finish_reason or finish,
            ended.get("stop_reason") or string,
        )
    return found


@pytest.fixture
def last(easy: Puzzle) -> str:
    """The last digit of the answer, which the thought has too."""
    digit = easy.long.content[-1]
    assert digit in easy.long.reasoning
    return digit


def test_bare_vllm_stops_in_the_thought(replicas: list[Replica], easy: Puzzle, last: str) -> None:
    """This is what clients are kept from: there is no answer at all."""
    body = {"model": "tiny", "messages": easy.messages, "temperature": 0, "stop": [last]}
    thinking = {
        "chat_template_kwargs": {"enable_thinking": True},
        "thinking_token_budget": TIERS["long"]["thinking"],
    }
    sent = json.dumps(body | thinking).encode()
    (choice,) = json.loads(fetch(f"{replicas[0].url}/v1/chat/completions", sent))["choices"]

    assert not choice["message"]["content"]
    assert easy.long.reasoning.startswith(choice["message"]["reasoning"])
    assert choice["stop_reason"] == last


def is_whole(thought: str, puzzle: Puzzle, abilities: Abilities, *, stream: bool) -> bool:
    """Whether a thought came to its end, as far as this release sends it."""
    if abilities.streams_whole_thoughts or not stream:
        return thought == puzzle.long.reasoning
    return puzzle.long.reasoning.startswith(thought) and len(thought) > len(puzzle.long.reasoning) // 2


@pytest.mark.parametrize("stream", [False, True])
def test_answer_ends_before_the_string(
    client: OpenAI, easy: Puzzle, last: str, abilities: Abilities, stream: bool
) -> None:
    """The thought is whole, and the answer ends before the string."""
    ((thought, *rest),) = said(client, easy, stream=stream, stop=[last])

    assert rest == [easy.long.content.partition(last)[0], "stop", last]
    assert is_whole(thought, easy, abilities, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_every_choice_ends(client: OpenAI, easy: Puzzle, last: str, stream: bool) -> None:
    """So does each of several choices, with the string at its end if the client wants it."""
    before, string, _ = easy.long.content.partition(last)
    extra = {"include_stop_str_in_output": True}
    # vLLM refuses several choices of a greedy sampling, so this is nearly one
    found = said(client, easy, stream=stream, stop=["?", last], n=2, temperature=0.01, extra_body=extra)

    assert all(last in thought for thought, *_ in found)
    assert [end for _, *end in found] == [[before + string, "stop", last]] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_string_in_the_thought_alone(
    client: OpenAI, easy: Puzzle, abilities: Abilities, stream: bool
) -> None:
    """A string that only the thought has changes nothing."""
    assert "\n" in easy.long.reasoning
    ((thought, *rest),) = said(client, easy, stream=stream, stop="\n")

    assert rest == [easy.long.content, "stop", None]
    assert is_whole(thought, easy, abilities, stream=stream)


def test_usage_of_a_stream(client: OpenAI, easy: Puzzle, last: str, abilities: Abilities) -> None:
    """A stream that a string has ended reports what vLLM had counted by then."""
    asked: dict[str, Any] = {"model": "endless:long", "messages": easy.messages, "temperature": 0}
    asked |= {"stop": last, "stream_options": {"include_usage": True}, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.create(**asked, stream=True) as stream:
        usage = [chunk.usage for chunk in stream if chunk.usage]

    assert len(usage) == 1
    details = usage[0].completion_tokens_details
    assert (details is not None) is abilities.counts_thoughts
    assert details is None or details.reasoning_tokens == easy.long.thought
    assert easy.long.thought < usage[0].completion_tokens < easy.long.tokens + 20
