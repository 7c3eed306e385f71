"""Asks a replica how many tokens a prompt has, where its bytes alone do not show that it leaves room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext

from gateway.errors import GatewayError
from gateway.openai_api.endpoints import TOKENIZE
from gateway.openai_api.large_requests import LARGE_BODY
from gateway.openai_api.tokenizing import read_count
from gateway.upstream.dispatch import Upstream
from gateway.upstream.pool import Backend, Pool

log = logging.getLogger("thinkmeter.upstream")

_SECONDS = 1.0  # the time for an answer; the request waits for it
_MOST_BYTES = 1 << 22  # of a request: a million tokens of text
_AT_ONCE = 4  # large questions at the same time, as each holds a copy of a body
_AWAY, _UNABLE = 10.0, 60.0
"""Seconds for which a replica is not asked again: if it did not answer, and if it does not know how to."""
_REFUSALS = frozenset({400, 413, 422})
"""Statuses by which a replica that counts refuses this prompt, as it will refuse the request."""


class PromptCounts:
    """Counts prompts with the tokenizers of the replicas."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._large = asyncio.Semaphore(_AT_ONCE)

    async def of(self, pool: Pool, size: int, question: Callable[[], bytes | None]) -> int | None:
        """The tokens of a prompt; None if no replica says so in time. Failures are logged, never raised.

        size: bytes of the request. question: makes the body to send, which is a copy of most of them. It is
        called only if there is a replica to ask.
        """
        now = time.monotonic()
        unable = {backend for backend in pool.backends if now < backend.counts_from}
        backend = pool.pick(now, unable, None)
        if backend is None or size > _MOST_BYTES:
            return None
        asked = False
        try:
            async with asyncio.timeout(_SECONDS), self._large if size > LARGE_BODY else nullcontext():
                if (body := question()) is None:
                    return None
                asked = True
                status, answer = await self._upstream.ask(
                    backend.replica,
                    b"POST",
                    TOKENIZE.path,
                    body,
                    connect=pool.timeouts.connect,
                    age=pool.timeouts.connection_age,
                    repeatable=True,
                )
        except (TimeoutError, GatewayError) as error:
            if asked:  # else the time went by while other large prompts were counted
                _pause(backend, _AWAY, str(error) or f"no answer in {_SECONDS:g} s")
            return None
        if status in _REFUSALS:
            return None
        count = read_count(answer) if status == 200 else None
        if count is None:
            _pause(backend, _AWAY if status >= 500 else _UNABLE, f"status {status}")
        return count


def _pause(backend: Backend, seconds: float, why: str) -> None:
    """Ask a replica no more for some time."""
    backend.counts_from = time.monotonic() + seconds
    log.info(
        "backend %s does not count the tokens of prompts (POST %s: %s), so they are estimated",
        backend.name,
        TOKENIZE.path,
        why,
    )
