"""Legacy completions: they have no chat template, so the gateway adds nothing but a cap."""

from openai import OpenAI

from examples.tiny_reasoner.chat import THINK, UNTHINK, render
from examples.tiny_reasoner.engine import Engine
from examples.tiny_reasoner.task import grade

from .abilities import Abilities
from .conftest import Puzzle

SUM = render("What is 3+4?", thinking=False)


def test_answer(client: OpenAI, engine: Engine) -> None:
    """A completion has the right text and usage that adds up."""
    answer = client.completions.create(model="tiny", prompt=SUM, temperature=0, max_tokens=12)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("7", "stop")
    assert answer.usage
    assert answer.usage.prompt_tokens == len(engine.tokenizer.encode(SUM))
    assert answer.usage.completion_tokens == 2  # the digit and the end


def test_length(client: OpenAI) -> None:
    """The requested length is kept."""
    answer = client.completions.create(
        model="tiny", prompt=SUM, temperature=0, max_tokens=12, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage
    assert answer.usage.completion_tokens == 12


def test_stream_equals_answer(client: OpenAI) -> None:
    """A streamed completion adds up to the whole one, non-ASCII text included."""
    prompt = "größer als 漢字 🦉"
    whole = client.completions.create(model="tiny", prompt=prompt, echo=True, temperature=0, max_tokens=12)
    with client.completions.create(
        model="tiny", prompt=prompt, echo=True, temperature=0, max_tokens=12, stream=True
    ) as stream:
        chunks = list(stream)
    assert whole.choices[0].text.startswith(prompt)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_in_stream(client: OpenAI) -> None:
    """A streamed completion has usage in its last chunk if the client asks for it."""
    with client.completions.create(
        model="tiny", prompt="12345", max_tokens=3, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.prompt_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_thinking_budget(client: OpenAI, engine: Engine, hard: Puzzle, abilities: Abilities) -> None:
    """`thinking_token_budget` reaches vLLM for completions too, and the model answers after the cut.

    Older releases ignore it there.
    """
    answer = client.completions.create(
        model="tiny",
        prompt=render(hard.question.text, thinking=True) + THINK,
        temperature=0,
        max_tokens=24,
        extra_body={"thinking_token_budget": 4},
    )
    thought, marker, rest = answer.choices[0].text.partition(UNTHINK)
    assert hard.long.reasoning.startswith(thought)
    if not abilities.budgets_completions:
        assert (len(engine.tokenizer.encode(thought)) > 4, marker) == (True, "")
        return
    assert (len(engine.tokenizer.encode(thought)), marker) == (4, UNTHINK)
    assert rest.strip().isdigit()


def test_several_prompts(client: OpenAI) -> None:
    """A list of prompts gives one completion per prompt, in the same order."""
    prompts = [render(f"What is {n}+4?", thinking=False) for n in (2, 3, 4)]
    answer = client.completions.create(model="tiny", prompt=prompts, temperature=0, max_tokens=4)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(grade(c.text, str(n)) for c, n in zip(answer.choices, (6, 7, 8), strict=True))
