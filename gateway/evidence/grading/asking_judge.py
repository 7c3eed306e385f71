"""Asks a judge behind any endpoint of OpenAI's chat completions, with the gateway's own HTTP client."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

from gateway.config.evidence import JudgeSettings
from gateway.config.models import Replica
from gateway.errors import GatewayError
from gateway.evidence.grading.judge import Ask, JudgeFailed
from gateway.evidence.grading.verdict import JudgeMessage
from gateway.openai_api.responses import read_usage
from gateway.openai_api.usage import TokenUsage
from gateway.upstream.dispatch import Upstream

_CONNECT_SECONDS = 10


class JudgeReply(NamedTuple):
    """What the judge said, and the tokens that it used."""

    text: str
    usage: TokenUsage


def ask_judge(settings: JudgeSettings, seconds: float) -> Ask:
    """What sends messages to the judge. Each call blocks its thread, for `seconds` at most."""
    replica = Replica(url=settings.url, api_key=settings.api_key)

    def ask(messages: list[JudgeMessage]) -> str:
        return asyncio.run(_answer(replica, settings.model, messages, seconds))

    return ask


async def _answer(replica: Replica, model: str, messages: list[JudgeMessage], seconds: float) -> str:
    upstream = Upstream()
    try:
        return (await judge_reply(upstream, replica, model, messages, seconds)).text
    finally:
        upstream.close()


async def judge_reply(
    upstream: Upstream, replica: Replica, model: str, messages: list[JudgeMessage], seconds: float
) -> JudgeReply:
    """Ask the judge in this event loop, for `seconds` at most. Raises: JudgeFailed."""
    body = json.dumps({"model": model, "messages": messages, "temperature": 0}).encode()
    try:
        async with asyncio.timeout(seconds):
            status, reply = await upstream.ask(
                replica, b"POST", "/v1/chat/completions", body, connect=_CONNECT_SECONDS, repeatable=True
            )
    except TimeoutError:
        raise JudgeFailed(f"no answer within {seconds:g} s") from None
    except GatewayError as error:
        raise JudgeFailed(error.detail or str(error)) from None
    if status != 200:
        raise JudgeFailed(f"status {status}")
    return JudgeReply(_content(reply), read_usage(reply) or TokenUsage())


def _content(reply: bytes) -> str:
    try:
        content: Any = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise JudgeFailed("its response is no chat completion") from None
    return content if isinstance(content, str) else ""
