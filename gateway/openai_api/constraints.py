"""Which requests ask for an answer that must parse: a tool call, or text that a schema governs. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from gateway.openai_api.requests import Fields

_SCHEMAS = frozenset({
    *("structured_outputs", "structural_tag", "format"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_structural_tag"),
    *("json_schema", "regex", "ebnf"),  # SGLang's
})  # fmt: skip
"""Fields that give the answer a form, with any value but an empty one."""

_TOOLS = {"tools": "tool_choice", "functions": "function_call"}
"""Fields that offer tools, each with the field that can forbid their use."""

_READ = _SCHEMAS | _TOOLS.keys() | {"response_format"}
_LONGEST_EMPTY = 64  # bytes; a longer value is not empty, and large ones are not decoded


def constrains_answer(fields: Fields) -> bool:
    """Whether the model may call a tool, or its answer must follow a schema or a grammar.

    A mark of the end of a thought inside such an answer makes it worthless.
    """
    if _READ.isdisjoint(fields):
        return False
    for tools, choice in _TOOLS.items():
        if _given(fields, tools) and _word(fields, choice) != "none":
            return True
    return _has_format(fields) or any(_given(fields, name) for name in _SCHEMAS)


def _has_format(fields: Fields) -> bool:
    """Whether `response_format` asks for anything but plain text."""
    wanted = fields.get("response_format")
    if wanted is None or not _given(fields, "response_format"):
        return False
    if _long(wanted):
        return True
    value = _decoded(wanted)
    return not (isinstance(value, dict) and value.get("type") in (None, "text"))


def _given(fields: Fields, name: str) -> bool:
    """Whether a field has a value that is not empty."""
    value = fields.get(name)
    return value is not None and (_long(value) or bool(_decoded(value)))


def _word(fields: Fields, name: str) -> Any:
    value = fields.get(name)
    return None if value is None or _long(value) else _decoded(value)


def _long(value: Raw) -> bool:
    """Whether a value is longer than any that counts as empty, without a copy of it."""
    return memoryview(value).nbytes > _LONGEST_EMPTY


def _decoded(value: Raw) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True  # it is there, whatever it is
