"""Reads the visible text of a whole chat completion. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from gateway.openai_api.counts import loose_object


class _Message(Struct):
    content: Any = None


class _Choice(Struct):
    message: _Message | None = None


class _Completion(Struct):
    choices: list[_Choice] = []


_completion = msgspec.json.Decoder(_Completion)


def answer_text(body: bytes) -> str | None:
    """The text of the first choice, without the thought; None if the body is no chat completion.

    A model that has written nothing visible has given the empty answer.
    """
    try:
        choices = _completion.decode(body).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        read = loose_object(body)
        try:
            choices = msgspec.convert(read or {}, _Completion).choices
        except msgspec.ValidationError:
            return None
    if not choices or choices[0].message is None:
        return None
    content = choices[0].message.content
    return content if isinstance(content, str) else ""
