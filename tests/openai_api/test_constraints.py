"""Which requests ask for an answer that must parse."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from gateway.openai_api.constraints import constrains_answer
from gateway.openai_api.endpoints import CHAT
from gateway.openai_api.large_requests import LARGE_BODY
from tests.making import chat, chat_body

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}

CONSTRAINED: list[dict[str, Any]] = [
    {"tools": [TOOL]},
    {"tools": [TOOL], "tool_choice": None},
    {"tools": [TOOL], "tool_choice": "auto"},
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    {"tools": [TOOL], "response_format": {"type": "text"}},
    {"functions": [{"name": "weather"}]},
    {"functions": [{"name": "weather"}], "function_call": "auto"},
    {"functions": [{"name": "weather"}], "tool_choice": "none"},
    {"response_format": {"type": "json_object"}},
    {"response_format": SCHEMA},
    {"response_format": {"type": "structural_tag", "structures": [], "triggers": []}},
    {"response_format": {"type": "a type that is not known yet"}},
    {"tools": [TOOL], "tool_choice": "none", "response_format": SCHEMA},
    {"structured_outputs": {"json": {"type": "object"}}},
    {"structured_outputs": {"choice": ["yes", "no"]}},
    {"structural_tag": "{}"},
    {"guided_json": {"type": "object"}},
    {"guided_json": '{"type": "object"}'},
    {"guided_regex": "[a-z]+"},
    {"guided_choice": ["yes", "no"]},
    {"guided_grammar": "root ::= 'a'"},
]
FREE: list[dict[str, Any]] = [
    {},
    {"tools": None},
    {"tools": []},
    {"tools": [TOOL], "tool_choice": "none"},
    {"functions": [{"name": "weather"}], "function_call": "none"},
    {"functions": []},
    {"tool_choice": "auto"},
    {"response_format": None},
    {"response_format": {}},
    {"response_format": {"type": "text"}},
    {"structured_outputs": None},
    {"structured_outputs": {}},
    {"guided_json": None},
    {"guided_choice": []},
    {"guided_decoding_backend": "xgrammar"},
    {"parallel_tool_calls": False},
    {"logprobs": True, "stop": ["x"]},
]


@pytest.mark.parametrize("fields", CONSTRAINED)
def test_answer_that_must_parse(fields: dict[str, Any]) -> None:
    """Tools that may be called, a format other than text, or a grammar."""
    assert constrains_answer(chat(**fields).fields)


@pytest.mark.parametrize("fields", FREE)
def test_answer_in_plain_text(fields: dict[str, Any]) -> None:
    """Empty values, tools that may not be called, and plain text constrain nothing."""
    assert not constrains_answer(chat(**fields).fields)


@pytest.mark.parametrize("broken", [b"[", b'{"type"', b"\xff"])
def test_value_that_cannot_be_read(broken: bytes) -> None:
    """A value that is there and cannot be read counts, as the backend may read it."""
    assert constrains_answer({"response_format": Raw(broken)})
    assert constrains_answer({"tools": Raw(broken)})


def test_large_request() -> None:
    """Tools are seen in a body that is parsed in slices, too."""
    tools = [TOOL] * (LARGE_BODY // 50)

    assert constrains_answer(CHAT.parse(chat_body(tools=tools)).fields)
    assert not constrains_answer(CHAT.parse(chat_body(tools=tools, tool_choice="none")).fields)
    assert not constrains_answer(CHAT.parse(chat_body("x" * 2 * LARGE_BODY)).fields)
