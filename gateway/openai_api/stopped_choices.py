"""Ends one choice of a response at a stop string of the client's. No I/O.

Only the fields that a stop string changes are written anew. All others keep the backend's bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.openai_api.requests import encode

ChoiceFields = dict[str, Raw]
"""The fields of a choice. Each value is the bytes that the backend sent."""

_NOTHING = (b"null", b"[]", b'""', b"{}")
_CALLS = ("tool_calls", "function_call")
_REASONING = ("reasoning", "reasoning_content")


class _Entry(Struct):
    """One token in `logprobs`."""

    token: str
    bytes: list[int] | None = None


_choice = msgspec.json.Decoder(ChoiceFields)
_entries = msgspec.json.Decoder(list[_Entry])
_raws = msgspec.json.Decoder(list[Raw])


def has(fields: ChoiceFields, *names: str) -> bool:
    """Whether one of the fields has a value that is not empty."""
    return any(name in fields and bytes(fields[name]) not in _NOTHING for name in names)


def has_calls(message: ChoiceFields) -> bool:
    """Whether a message or delta calls a tool."""
    return has(message, *_CALLS)


def has_reasoning(message: ChoiceFields) -> bool:
    """Whether a message or delta has reasoning."""
    return has(message, *_REASONING)


def member_of(choice: ChoiceFields, name: str) -> ChoiceFields:
    """The message or the delta of a choice; empty if it is absent."""
    return _choice.decode(choice[name]) if has(choice, name) else {}


def content_of(message: ChoiceFields) -> str:
    """The text of a message or delta; empty if there is none."""
    return _text(message, "content")


def reasoning_of(message: ChoiceFields) -> str:
    """The reasoning of a message; some backends send the same under two names."""
    return next((text for name in _REASONING if (text := _text(message, name))), "")


def _text(fields: ChoiceFields, name: str) -> str:
    value: Any = msgspec.json.decode(fields[name]) if name in fields else None
    return value if isinstance(value, str) else ""


def with_content(choice: ChoiceFields, name: str, message: ChoiceFields, text: str) -> ChoiceFields:
    """The choice with another text in its message or delta."""
    return choice | {name: Raw(encode(message | {"content": Raw(encode(text))}))}


def ended(choice: ChoiceFields, reason: str, string: str) -> ChoiceFields:
    """The choice with the reason for which it ended."""
    return choice | {"finish_reason": Raw(encode(reason)), "stop_reason": Raw(encode(string))}


def without_calls(message: ChoiceFields) -> ChoiceFields:
    """The message without the tool calls that follow its text."""
    return {name: value for name, value in message.items() if name not in _CALLS or not has(message, name)}


def cut_tokens(choice: ChoiceFields, text: str, end: int) -> ChoiceFields:
    """The choice without the log probabilities and ids of tokens after a position in its text.

    The token in which the position lies stays, as at vLLM. Where the tokens do not make up the text, all
    stay, and also where they cannot be read.
    """
    try:
        logprobs = member_of(choice, "logprobs")
        if not has(logprobs, "content"):
            return choice
        kept = _tokens_until(_entries.decode(logprobs["content"]), text, end)
        entries = _raws.decode(logprobs["content"])
    except (msgspec.DecodeError, ValueError):
        return choice
    if kept is None or kept >= len(entries):
        return choice
    cut = {"logprobs": Raw(encode(logprobs | {"content": Raw(encode(entries[:kept]))}))}
    if has(choice, "token_ids"):
        ids = _raws.decode(choice["token_ids"])
        if len(ids) == len(entries):
            cut["token_ids"] = Raw(encode(ids[:kept]))
    return choice | cut


def _tokens_until(entries: list[_Entry], text: str, end: int) -> int | None:
    """How many tokens it takes to write the text up to a position; None if they do not write it."""
    spoken = [entry.token.encode() if entry.bytes is None else bytes(entry.bytes) for entry in entries]
    start = b"".join(spoken).rfind(text.encode())
    if start < 0:
        return None
    left = start + len(text[:end].encode())
    for number, token in enumerate(spoken):
        if left <= 0:
            return number
        left -= len(token)
    return len(spoken)
