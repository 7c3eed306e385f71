"""A client's `stop` ends the answer and never the thought, and it ends the answer as vLLM itself would."""

from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from examples.tiny_reasoner.task import grade

from .conftest import Puzzle


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def said(client: OpenAI, stream: bool, **fields: Any) -> Iterator[tuple[str, str, str | None]]:
    """The reasoning, the content and the finish reason of every choice."""
    fields = {"temperature": 0} | fields
    if not stream:
        for choice in client.chat.completions.create(**fields).choices:
            extra = choice.message.model_extra or {}
            yield extra["reasoning"] or "", choice.message.content or "", choice.finish_reason
        return
    heard: dict[int, list[str]] = {}
    with client.chat.completions.create(**fields, stream=True) as chunks:
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            reasoning, content, _ = heard.setdefault(choice.index, ["", "", ""])
            reasoning += getattr(choice.delta, "reasoning", None) or ""
            content += choice.delta.content or ""
            heard[choice.index] = [reasoning, content, choice.finish_reason or heard[choice.index][2]]
    for index in sorted(heard):
        reasoning, content, finish = heard[index]
        yield reasoning, content, finish


@pytest.mark.parametrize("stop", [["check"], "\n", ["=", "ok"]], ids=repr)
def test_in_the_thought(client: OpenAI, hard: Puzzle, stop: Any, stream: bool) -> None:
    """A stop string in the thought changes nothing."""
    (found,) = said(client, stream, model="tiny:long", messages=hard.messages, stop=stop)
    assert found == (hard.long.reasoning, hard.long.content, "stop")
    assert grade(found[1], hard.question.answer)


@pytest.mark.parametrize("included", [False, True], ids=["without", "with"])
def test_in_the_answer(client: OpenAI, hard: Puzzle, stream: bool, included: bool) -> None:
    """A stop string in the answer ends it, although the same letter was in the thought before."""
    answer = hard.long.content
    letter = answer.strip()[-1]
    assert letter in hard.long.reasoning
    (found,) = said(
        client,
        stream,
        model="tiny:long",
        messages=hard.messages,
        stop=[letter],
        extra_body={"include_stop_str_in_output": included},
    )
    before = answer.partition(letter)[0]
    assert found == (hard.long.reasoning, before + letter * included, "stop")


def test_several_choices(client: OpenAI, hard: Puzzle, stream: bool) -> None:
    """Each choice thinks to its end."""
    fields = {"model": "tiny:medium", "messages": hard.messages, "n": 3, "temperature": 0.7, "seed": 1}
    free = [*said(client, stream, **fields)]
    stopped = [*said(client, stream, **fields, stop=["=", "check"])]
    assert len(free) == 3
    assert stopped == free
