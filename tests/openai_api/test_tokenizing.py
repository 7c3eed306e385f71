"""The question how many tokens a prompt has, and its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.openai_api.tokenizing import count_request, read_count, truncated_to

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def raw(fields: dict[str, Any]) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


def question(fields: dict[str, Any]) -> Any:
    body = count_request(raw(fields))
    return body if body is None else json.loads(body)


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"temperature": 0, "stream": True, "max_completion_tokens": 5, "tools": None}, {}),
        (
            {"tools": [{}], "add_generation_prompt": False, "continue_final_message": True},
            {"tools": [{}], "add_generation_prompt": False, "continue_final_message": True},
        ),
        ({"reasoning_effort": "low"}, {"chat_template_kwargs": {"reasoning_effort": "low"}}),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high", "a": 1}},
            {"chat_template_kwargs": {"reasoning_effort": "high", "a": 1}},
        ),
        ({"chat_template_kwargs": "odd", "chat_template": "{{x}}"}, {"chat_template": "{{x}}"}),
    ],
)
def test_question_about_a_chat(fields: dict[str, Any], asked: dict[str, Any]) -> None:
    """Everything that a template renders is asked about, and nothing else."""
    assert question(CHAT | fields) == CHAT | asked


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("hi", {"model": "m", "prompt": "hi", "add_special_tokens": False}),
        ([1, 2], None),
        (["a", "b"], None),
        (None, None),
    ],
)
def test_question_about_a_completion(prompt: Any, asked: Any) -> None:
    """One text can be counted; token ids and lists of prompts cannot."""
    assert question({"model": "m", "prompt": prompt, "add_special_tokens": False, "seed": 1}) == asked


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b'{"count":12,"max_model_len":99,"tokens":[1,2],"token_strs":null}', 12),
        (b'{"count":12,"tokens":[' + b"1," * 9, 12),
        (b'{"max_model_len":99, "count":12}', 12),
        (b'{"tokens":[1,2]}', None),
        (b'{"count":0}', None),
        (b'{"count":true}', None),
        (b'{"count":"12"}', 12),
        (b"[12]", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_answer(body: bytes, count: int | None) -> None:
    """Only a number of tokens is believed."""
    assert read_count(body) == count


@pytest.mark.parametrize(
    ("value", "tokens"), [(5, 5), ("5", 5), (5.0, 5), (-1, None), (0, None), (None, None), ([5], None)]
)
def test_cut_prompt(value: Any, tokens: int | None) -> None:
    """`truncate_prompt_tokens` says how many tokens are kept; -1 leaves it to the backend."""
    assert truncated_to(raw({"truncate_prompt_tokens": value})) == tokens
    assert truncated_to({}) is None
