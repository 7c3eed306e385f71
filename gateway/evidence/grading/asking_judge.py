"""Asks a judge behind any endpoint of OpenAI's chat completions, with the gateway's own HTTP client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.config.evidence import JudgeSettings
from gateway.config.models import Replica
from gateway.errors import GatewayError
from gateway.evidence.grading.judge import Ask, JudgeFailed
from gateway.evidence.grading.verdict import JudgeMessage
from gateway.upstream.dispatch import Upstream

_CONNECT_SECONDS = 10


def ask_judge(settings: JudgeSettings, seconds: float) -> Ask:
    """What sends messages to the judge. Each call blocks its thread, for `seconds` at most."""
    replica = Replica(url=settings.url, api_key=settings.api_key)

    def ask(messages: list[JudgeMessage]) -> str:
        body = {"model": settings.model, "messages": messages, "temperature": 0}
        return asyncio.run(_answer(replica, json.dumps(body).encode(), seconds))

    return ask


async def _answer(replica: Replica, body: bytes, seconds: float) -> str:
    upstream = Upstream()
    try:
        async with asyncio.timeout(seconds):
            status, reply = await upstream.ask(
                replica, b"POST", "/v1/chat/completions", body, connect=_CONNECT_SECONDS, repeatable=True
            )
    except TimeoutError:
        raise JudgeFailed(f"no answer within {seconds:g} s") from None
    except GatewayError as error:
        raise JudgeFailed(error.detail or str(error)) from None
    finally:
        upstream.close()
    if status != 200:
        raise JudgeFailed(f"status {status}")
    return _content(reply)


def _content(reply: bytes) -> str:
    try:
        content: Any = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise JudgeFailed("its response is no chat completion") from None
    return content if isinstance(content, str) else ""
