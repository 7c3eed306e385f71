"""Collects the text of an answer while it passes to the client. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from gateway.openai_api.counts import loose_object
from gateway.openai_api.event_stream import event_data, split_events
from gateway.openai_api.thought_marks import thought_length

MOST_HEARD = 1 << 19
"""Bytes of a whole response, or characters of a stream's answer, that are kept."""


class _Said(Struct):
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(Struct):
    message: _Said | None = None
    delta: _Said | None = None


class _Completion(Struct):
    choices: list[_Choice] = []


_completion = msgspec.json.Decoder(_Completion)


class HeardAnswer:
    """The first choice of a response: its visible text, and whether it calls tools."""

    __slots__ = ("_body", "_length", "_readable", "_texts", "calls_tools")

    def __init__(self) -> None:
        self._body = b""
        self._texts: list[str] = []
        self._length = 0
        self._readable = False
        self.calls_tools = False
        """Known once `text` was read."""

    def whole(self, body: bytes) -> None:
        """Take a whole response. It is not parsed before `text`."""
        if len(body) <= MOST_HEARD:
            self._body = body

    def events(self, block: bytes) -> None:
        """Take whole events of a stream, as they are sent to the client."""
        if self._length > MOST_HEARD:
            return
        for event in split_events(block):
            data = event_data(event)
            if data.startswith(b"{") and (said := _first_choice(data)) is not None:
                self._readable = True
                self._add(said)

    def text(self) -> str | None:
        """The answer without a thought in it; None if it was too long, or no chat completion."""
        body, self._body = self._body, b""
        if body and (said := _first_choice(body)) is not None:
            self._readable = True
            self._add(said)
        if not self._readable or self._length > MOST_HEARD:
            return None
        text = "".join(self._texts)
        return text[thought_length(text) :]

    def _add(self, said: _Said) -> None:
        if isinstance(said.content, str) and said.content:
            self._length += len(said.content)
            self._texts.append(said.content)
            if self._length > MOST_HEARD:
                self._texts.clear()
        self.calls_tools = self.calls_tools or bool(said.tool_calls or said.function_call)


def _first_choice(data: bytes) -> _Said | None:
    """What the first choice of a response or of a chunk says; None if there is none."""
    try:
        choices = _completion.decode(data).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            choices = msgspec.convert(loose_object(data) or {}, _Completion).choices
        except msgspec.ValidationError:
            return None
    return (choices[0].message or choices[0].delta) if choices else None
