"""Reads the token usage of a whole response, one that is not streamed."""

from __future__ import annotations

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
