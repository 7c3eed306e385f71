"""Which fields leave the length of an answer to the model, and which silence its count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.openai_api.lengths import held_back, least_tokens, model_decides, silences, within_cap

ORDINARY = {"model": "m", "messages": [], "stream": True, "temperature": 0.7, "top_p": 0.9, "stop": ["\n"]}


def raw(fields: dict[str, Any]) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.2, "user": "u", "seed": 1},
        {"tools": [{}], "tool_choice": "auto", "parallel_tool_calls": True},
        {"response_format": {"type": "text"}, "chat_template_kwargs": {"enable_thinking": True}},
        {"min_tokens": None, "ignore_eos": None},
    ],
)
def test_ordinary_fields(fields: dict[str, Any]) -> None:
    """The fields that ordinary clients send leave the length to the model."""
    assert model_decides(raw(ORDINARY | fields))
    assert not silences(raw(ORDINARY | fields))


@pytest.mark.parametrize(
    "field",
    [
        *({"min_tokens": 1}, {"ignore_eos": True}, {"ignore_eos": 1}, {"n": 2}, {"best_of": 2}),
        *(
            {"use_beam_search": True},
            {"length_penalty": 5},
            {"stop_token_ids": [1]},
            {"logit_bias": {"2": -100}},
        ),
        *(
            {"bad_words": ["</s>"]},
            {"allowed_token_ids": [5]},
            {"repetition_penalty": 0.1},
            {"temperature": 2},
        ),
        *({"frequency_penalty": -2}, {"presence_penalty": 2}, {"tool_choice": "required"}),
        *({"tool_choice": {"type": "function"}}, {"response_format": {"type": "json_schema"}}),
        *({"structured_outputs": {"regex": "a{9999}"}}, {"guided_regex": "a{9999}"}, {"vllm_xargs": {}}),
        *({"continue_final_message": True}, {"add_generation_prompt": False}, {"chat_template": "x"}),
        *({"chat_template_kwargs": {"other": 1}}, {"echo": True}, {"a_field_of_next_year": 1}),
        {"temperature": "x"},
    ],
)
def test_fields_that_decide_the_length(field: dict[str, Any]) -> None:
    """Every field by which a client can lengthen an answer, and every unknown one, is told apart."""
    assert not model_decides(raw(ORDINARY | field))


@pytest.mark.parametrize(
    ("field", "silent"),
    [
        ({"use_beam_search": True}, True),
        ({"use_beam_search": False}, False),
        ({"best_of": 4}, True),
        ({"a_field_of_next_year": 1}, True),
        ({"ignore_eos": True, "min_tokens": 5, "n": 3}, False),
    ],
)
def test_fields_that_silence_the_count(field: dict[str, Any], silent: bool) -> None:
    """Some fields let a whole answer be generated before anything passes; unknown ones may."""
    assert silences(raw(ORDINARY | field)) is silent


@pytest.mark.parametrize(("stop", "tokens"), [(None, 0), ("abc", 12), (["a", "é" * 10], 40), ([], 0), (5, 0)])
def test_stop_strings_hold_back_text(stop: Any, tokens: int) -> None:
    """A backend holds back as many characters as the longest string has, of up to four tokens each."""
    assert held_back(raw({"stop": stop})) == tokens


@pytest.mark.parametrize(
    ("least", "max_tokens", "tokens"),
    [
        (20, None, 20),
        (20, 20, 20),
        (21, 20, 0),  # the client's own contradiction, which the backend explains
        (20.0, None, 20),
        ("20", None, 20),
        (0, None, 0),
        (-5, None, 0),
        (None, None, 0),
        (True, None, 1),
        ([20], None, 0),
        ("many", None, 0),
    ],
)
def test_fewest_tokens(least: Any, max_tokens: int | None, tokens: int) -> None:
    """`min_tokens` is read as a backend reads it, and what cannot be read asks for nothing."""
    assert least_tokens(raw({"min_tokens": least}), max_tokens) == tokens


def test_fewest_tokens_within_a_cap() -> None:
    """`min_tokens` above a cap of ours is lowered to it; otherwise the client's bytes stay."""
    fields = raw({"min_tokens": 50, "seed": 1})

    assert within_cap(fields, 40, None) == raw({"min_tokens": 40, "seed": 1})
    assert within_cap(fields, 50, None) is fields
    assert within_cap(fields, 40, 45) is fields
    assert within_cap({}, 40, None) == {}
