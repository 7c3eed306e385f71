"""Legacy completions: no chat template, so the gateway forwards them with no more than a cap."""

from openai import OpenAI


def test_answer(client: OpenAI) -> None:
    """A completion has text, usage and the length asked for."""
    answer = client.completions.create(model="tiny", prompt="hello", temperature=0, max_tokens=12)
    assert answer.choices[0].text.islower()
    assert len(answer.choices[0].text) == 12
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 12)


def test_stream_equals_answer(client: OpenAI) -> None:
    """A streamed completion adds up to the whole one; non-ASCII text survives the way."""
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
    """A streamed completion carries usage in its last chunk when it is asked for."""
    with client.completions.create(
        model="tiny", prompt="hello", max_tokens=3, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.prompt_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_thinking_budget(client: OpenAI) -> None:
    """`thinking_token_budget` reaches vLLM for completions too."""
    answer = client.completions.create(
        model="tiny",
        prompt="why?<think>",
        temperature=0,
        max_tokens=24,
        extra_body={"thinking_token_budget": 4},
    )
    thought, marker, rest = answer.choices[0].text.partition("</think>")
    assert (len(thought), marker) == (4, "</think>")
    assert rest.strip().islower()


def test_several_prompts(client: OpenAI) -> None:
    """A list of prompts gives one choice each."""
    answer = client.completions.create(model="tiny", prompt=["one", "two", "three"], max_tokens=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
