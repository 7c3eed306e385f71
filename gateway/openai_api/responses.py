"""Reads the token usage of a whole response, one that is not streamed."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.openai_api.usage import ReportedUsage, TokenUsage, from_backend


class ResponseMessage(Struct):
    content: Any = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Raw] | None = None


class ResponseChoice(Struct):
    finish_reason: str | None = None
    message: ResponseMessage | None = None
    text: str | None = None


class ResponseBody(Struct):
    choices: list[ResponseChoice] = []
    usage: ReportedUsage | None = None


_response = msgspec.json.Decoder(ResponseBody)


def read_usage(body: bytes) -> TokenUsage | None:
    """The token usage of a whole response; None if the body is not a response."""
    try:
        response = _response.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    reasoning = visible = 0
    finish_reason, truncated = None, False
    for choice in response.choices:
        message = choice.message or ResponseMessage()
        shown = choice.text or message.content or message.tool_calls
        finish_reason = choice.finish_reason or finish_reason
        truncated |= choice.finish_reason == "length" and not shown
        reasoning += len(message.reasoning or message.reasoning_content or "")
        visible += len(message.content) if isinstance(message.content, str) else 0
    usage = from_backend(response.usage, reasoning, visible) if response.usage else TokenUsage()
    usage.finish_reason, usage.truncated = finish_reason, truncated
    return usage


# These fields are found without parsing the JSON. Text that the model writes cannot match them, because
# quotes inside a JSON string are escaped. The usage is an object that may hold others, one level deep.
_USAGE = re.compile(rb'"usage"\s{0,8}:\s{0,8}(\{[^{}]{0,1000}(?:\{[^{}]{0,500}\}[^{}]{0,500}){0,4}\})')
_FINISH_REASON = re.compile(rb'"finish_reason"\s{0,8}:\s{0,8}"([^"\\]{0,64})"')
_SPLIT = 6_000  # bytes; no match is longer

_reported = msgspec.json.Decoder(ReportedUsage)


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
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                self._usage = _reported.decode(found[1])
        for found in _FINISH_REASON.finditer(text):
            self._finish_reason = found[1].decode(errors="replace")
        self._end = text[-_SPLIT:]

    def token_usage(self) -> TokenUsage:
        """The token usage that has passed."""
        usage = from_backend(self._usage, 0, 0) if self._usage else TokenUsage()
        usage.finish_reason = self._finish_reason
        return usage
