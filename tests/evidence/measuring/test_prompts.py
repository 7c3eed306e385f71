"""What records of data sets mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.evidence.measuring.prompts import PromptsError, digest_of_prompts, merged_prompts, prompt_of

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


@pytest.mark.parametrize("name", ["prompt", "question", "problem", "instruction", "input"])
@pytest.mark.parametrize("right", ["answer", "reference", "target", "solution"])
def test_fields_of_known_data_sets(name: str, right: str) -> None:
    """The question and the answer may have any of the usual names."""
    prompt = prompt_of({name: "2 + 2?", right: "4"}, "f:1")

    assert prompt.messages == ({"role": "user", "content": "2 + 2?"},)
    assert (prompt.text, prompt.reference) == ("2 + 2?", "4")


@pytest.mark.parametrize(
    ("record", "reference"),
    [
        ({"messages": CHAT}, None),
        ({"prompt": CHAT, "answer": 4}, "4"),
        ({"messages": [*CHAT, {"role": "assistant", "content": "4"}]}, "4"),
        ({"messages": [*CHAT, {"role": "assistant", "content": "4"}], "answer": "four"}, "four"),
        ({"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "2 + 2?"},
                            {"from": "gpt", "value": "4"}]}, "4"),
        ({"messages": json.dumps(CHAT)}, None),
    ],
)  # fmt: skip
def test_conversations(record: dict[str, Any], reference: str | None) -> None:
    """Lists of messages are sent as they are. An answer at their end is the reference."""
    prompt = prompt_of(record, "f:1")

    assert list(prompt.messages) == CHAT
    assert (prompt.text, prompt.reference) == ("2 + 2?", reference)


def test_instruction_with_an_input() -> None:
    """An instruction and its input are one question."""
    assert prompt_of({"instruction": "Add.", "input": "2 and 2"}, "f:1").text == "Add.\n\n2 and 2"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, "B"), ("1", "B"), ("B", "B"), ("Rome", "Rome"), (0, "A")],
)
def test_reference_of_a_choice(value: Any, expected: str) -> None:
    """The number of an option stands for its letter; letters and texts stay."""
    prompt = prompt_of({"question": "Capital of Italy?", "choices": ["Oslo", "Rome"], "answer": value}, "f:1")

    assert prompt.reference == expected
    assert prompt.text == (
        "Capital of Italy?\n\nA) Oslo\nB) Rome\n\nAnswer with the letter of the right option."
    )


def test_options_that_are_numbers() -> None:
    """An answer that is the text of an option is no position."""
    prompt = prompt_of({"question": "1 + 1?", "choices": ["2", "1"], "answer": "1"}, "f:1")

    assert prompt.reference == "1"


def test_options_that_the_question_has() -> None:
    """Options are not listed twice."""
    prompt = prompt_of({"question": "Oslo or Rome?", "choices": {"text": ["Oslo", "Rome"]}}, "f:1")

    assert prompt.text == "Oslo or Rome?"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "must be an object, not list"),
        ({}, "no prompt: give `messages` or one of"),
        ({"prompt": ""}, "no prompt"),
        ({"prompt": 3}, "`prompt` must be a text"),
        ({"messages": "hello"}, "`messages` must be a list of messages"),
        ({"messages": [{"role": "user"}]}, "`messages[0]` has no content"),
        ({"messages": ["hello"]}, "`messages[0]` must be an object"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "unknown role 'robot'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "has no message of a user"),
        ({"messages": [{"role": "system", "content": "x"}]}, "there is no question of a user"),
        ({"prompt": "  "}, "there is no question of a user"),
        ({"prompt": "x", "choices": ["one"]}, "`choices` must be a list of 2 to 26 options"),
        ({"prompt": "x", "choices": "one|two"}, "in CSV, as JSON"),
        ({"prompt": "x", "choices": ["a", "b"], "answer": 2}, "`answer` is 2, but"),
        ({"prompt": "x", "schema": "{"}, "`schema` is no JSON"),
        ({"prompt": "x", "schema": [1]}, "`schema` must be an object"),
        ({"prompt": "x", "id": "i" * 129}, "`id` must be a text of at most 128"),
        ({"prompt": "x", "id": [1]}, "`id` must be"),
    ],
)  # fmt: skip
def test_bad_records(record: Any, message: str) -> None:
    """A record that cannot be used is named with its place."""
    with pytest.raises(PromptsError) as error:
        prompt_of(record, "file.jsonl:7")

    assert str(error.value).startswith("file.jsonl:7: ")
    assert message in str(error.value)


def test_two_prompts_with_one_id() -> None:
    """Two prompts with one id are a mistake, which names both lines."""
    with pytest.raises(PromptsError, match=r"^f:9: the id 'a' is that of f:2 already$"):
        merged_prompts([prompt_of({"id": "a", "prompt": t}, p) for t, p in (("one", "f:2"), ("two", "f:9"))])


def test_one_prompt_twice() -> None:
    """A prompt that is there twice is kept once, and it is said where, and whether the references differ."""
    records = [("one", "1", "f:1"), (" ONE ", "1", "f:2"), ("one", "2", "f:3"), ("two", "2", "f:4")]

    kept, notes = merged_prompts(prompt_of({"prompt": t, "answer": a}, place) for t, a, place in records)

    assert [prompt.place for prompt in kept] == ["f:1", "f:4"]
    assert notes == [
        "f:2: the prompt of f:1 again",
        "f:3: the prompt of f:1 again, whose reference differs and is not used",
    ]


def test_prompt_without_an_id() -> None:
    """It gets one that depends on what it says alone, so that another order of lines changes nothing."""
    one, again = (prompt_of({"prompt": "What?"}, place) for place in ("f:1", "f:9"))

    assert one.id == again.id
    assert one.id != prompt_of({"prompt": "Why?"}, "f:2").id


def test_digest_and_rubric() -> None:
    """The digest does not depend on the order or the references; the rubric depends on the reference."""
    one, two = prompt_of({"prompt": "a", "answer": "1"}, "f:1"), prompt_of({"prompt": "b"}, "f:2")
    other = prompt_of({"prompt": "a", "answer": "2"}, "f:1")

    assert digest_of_prompts([one, two]) == digest_of_prompts([two, other])
    assert digest_of_prompts([one]) != digest_of_prompts([one, two])
    assert one.rubric != other.rubric
