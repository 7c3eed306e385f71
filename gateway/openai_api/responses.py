"""Reads the token usage of a whole response, one that is not streamed."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from gateway.openai_api.counts import loose_object, text_length, word_of
from gateway.openai_api.thought_marks import lost_marks, thought_length
from gateway.openai_api.usage import (
    ReportedUsage,
    TokenUsage,
    cut_short,
    from_backend,
    reported_usage,
)


class ResponseMessage(Struct):
    """A message as a backend wrote it. Each value may be anything."""

    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None


class ResponseChoice(Struct):
    finish_reason: Any = None
    message: ResponseMessage | None = None
    text: Any = None


class ResponseBody(Struct):
    choices: list[ResponseChoice] | None = None
    usage: ReportedUsage | None = None


_response = msgspec.json.Decoder(ResponseBody)
_NO_MESSAGE = ResponseMessage()


def read_usage(body: bytes) -> TokenUsage | None:
    """The token usage of a whole response; None if the body is not a JSON object."""
    try:
        response = _response.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        read = loose_object(body)
        if read is None:
            return None
        response = ResponseBody(_choices(read.get("choices")), reported_usage(read.get("usage")))
    choices = response.choices or []
    reasoning = visible = 0
    lost_mark = finish_reason = None
    silent: list[tuple[str | None, int]] = []
    for choice in choices:
        message = choice.message or _NO_MESSAGE
        thought, said, mark = _thought(message)
        reasoning += thought
        visible += said
        lost_mark = lost_mark or mark
        reason = word_of(choice.finish_reason)
        finish_reason = reason or finish_reason
        if not (said or choice.text or message.tool_calls):
            silent.append((reason, thought))
    usage = from_backend(response.usage, reasoning, visible) if response.usage else TokenUsage()
    usage.lost_mark, usage.finish_reason = lost_mark, finish_reason
    for reason, thought in silent:
        usage.truncated |= cut_short(reason, thought or usage.reasoning)
    return usage


def _choices(value: Any) -> list[ResponseChoice]:
    """The choices of a response in which some value is of an unusual type."""
    choices = [choice for choice in value if isinstance(choice, dict)] if isinstance(value, list) else []
    return [
        ResponseChoice(c.get("finish_reason"), _message(c.get("message")), c.get("text")) for c in choices
    ]


def _message(value: Any) -> ResponseMessage:
    return msgspec.convert(value, ResponseMessage) if isinstance(value, dict) else ResponseMessage(value)


def _thought(message: ResponseMessage) -> tuple[int, int, str | None]:
    """Characters of the thought and of the answer, and the mark of a thought that the answer holds."""
    thought, content = message.reasoning or message.reasoning_content, message.content
    reasoning = text_length(thought) if thought else 0
    if not isinstance(content, str):
        return reasoning, text_length(content) if content else 0, None
    if reasoning or not (mark := lost_marks(content)):
        return reasoning, len(content), None
    end = thought_length(content)
    return end, len(content[end:].strip()), mark


# These fields are found without parsing the JSON. Text that the model writes cannot match them, because
# quotes inside a JSON string are escaped. The usage is an object that may hold others, one level deep.
_USAGE = re.compile(rb'"usage"\s{0,8}:\s{0,8}(\{[^{}]{0,1000}(?:\{[^{}]{0,500}\}[^{}]{0,500}){0,4}\})')
_FINISH_REASON = re.compile(rb'"finish_reason"\s{0,8}:\s{0,8}"([^"\\]{0,64})"')
_SPLIT = 6_000  # bytes; no match is longer


class UsageScanner:
    """Reads the token usage of a response that is too large to be held, as its bytes pass.

    The last usage wins. Reasoning that the backend does not report is not estimated.
    """

    def __init__(self) -> None:
        self._end = b""
        self._usage: ReportedUsage | None = None
        self._finish_reason: str | None = None

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the body."""
        text = self._end + block
        for found in _USAGE.finditer(text):
            self._usage = reported_usage(found[1])
        for found in _FINISH_REASON.finditer(text):
            self._finish_reason = found[1].decode(errors="replace")
        self._end = text[-_SPLIT:]

    def token_usage(self) -> TokenUsage:
        """The token usage that has passed."""
        usage = from_backend(self._usage, 0, 0) if self._usage else TokenUsage()
        usage.finish_reason = self._finish_reason
        return usage
