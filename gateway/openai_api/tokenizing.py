"""Asks a backend how many tokens a prompt has (`POST /tokenize` of vLLM), and reads its answer. No I/O."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.openai_api.counts import count_of
from gateway.openai_api.lenient import whole_number
from gateway.openai_api.requests import Fields, encode

_SAME = (
    *("messages", "tools", "chat_template"),
    *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
)
"""Fields that mean the same in a chat request and in a request to count its tokens."""
_FOR_TEMPLATE = ("documents", "reasoning_effort")
"""Fields of a chat request that a backend hands to its chat template."""
_BEGINS = re.compile(rb'\s*\{\s*"count"\s*:\s*(\d{1,12})\s*[,}]')
"""vLLM begins with the number. All the tokens follow, which take milliseconds to read."""
_NULL = Raw(b"null")
_fields = msgspec.json.Decoder(Fields)


class _Counted(Struct):
    count: Any = None


def count_request(fields: Fields) -> bytes | None:
    """The body that asks for the prompt tokens of a chat, or of a legacy completion with one text.

    None if a backend could not tell: prompts given as token ids or embeddings, or several prompts.
    """
    asked = {"model": fields["model"]} if "model" in fields else {}
    if "messages" not in fields:
        prompt = fields.get("prompt", _NULL)
        if not bytes(prompt).lstrip().startswith(b'"'):
            return None
        names = ("add_special_tokens",)
        return encode(asked | {"prompt": prompt} | _given(fields, names))
    asked |= _given(fields, _SAME)
    variables = _given(fields, _FOR_TEMPLATE) | _object(fields.get("chat_template_kwargs", _NULL))
    return encode(asked | ({"chat_template_kwargs": variables} if variables else {}))


def read_count(body: bytes) -> int | None:
    """The number of tokens in the answer; None if it has none that can be believed."""
    if found := _BEGINS.match(body):
        return int(found[1]) or None
    try:
        return count_of(msgspec.json.decode(body, type=_Counted).count) or None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def truncated_to(fields: Fields) -> int | None:
    """The tokens to which the client has its prompt cut (`truncate_prompt_tokens`); None without a number."""
    raw = fields.get("truncate_prompt_tokens")
    try:
        most = None if raw is None else whole_number(msgspec.json.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return most if most and most > 0 else None


def _given(fields: Fields, names: tuple[str, ...]) -> Fields:
    return {name: fields[name] for name in names if fields.get(name, _NULL) != _NULL}


def _object(raw: Raw) -> Fields:
    """The keys of a JSON object; none of anything else."""
    return _fields.decode(raw) if bytes(raw).lstrip().startswith(b"{") else {}
