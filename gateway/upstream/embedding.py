"""Fetches the embeddings of prompts for the head, within a timeout. On failure the head abstains."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback

from gateway.circuit_breaker import CircuitBreaker
from gateway.config.models import EncoderSettings
from gateway.errors import GatewayError
from gateway.upstream.dispatch import Upstream
from router_model.arrays import Singles as Vectors
from router_model.encoders.base import EncoderError
from router_model.encoders.embedder import Embedder
from router_model.encoders.remote import RemoteEncoder

log = logging.getLogger("thinkmeter.encoder")


class Embeddings:
    """Puts the embedding of a prompt into the encoder's cache before the head reads it there.

    A sentence encoder takes milliseconds, so it runs in a thread. An embeddings server is called with the
    gateway's own HTTP client. After several failures in a row nothing is fetched for a while; otherwise a
    dead server would delay every request by the whole timeout.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._breaker = CircuitBreaker()

    async def prefetch(self, encoder: Embedder, settings: EncoderSettings | None, prompt: str) -> None:
        """Fetch and cache the embedding of a prompt. Failures are logged, never raised."""
        if settings is None:
            return
        texts, breaker = encoder.missing([prompt]), self._breaker
        if not texts or not breaker.allows(time.monotonic()):
            return
        breaker.begin_attempt(time.monotonic())
        try:
            async with asyncio.timeout(settings.timeout):
                vectors = await self._embed(encoder, settings, texts)
            encoder.keep(texts, vectors)
        except (EncoderError, GatewayError, TimeoutError) as error:
            breaker.record_failure(time.monotonic())
            why = error.detail if isinstance(error, GatewayError) and error.detail else str(error)
            log.warning("no embedding, the head abstains: %s", why or "timeout")
        except Exception as error:  # noqa: BLE001 - even an unexpected fault must not fail the request
            breaker.record_failure(time.monotonic())
            trace = "".join(traceback.format_tb(error.__traceback__))  # its text may quote the prompt
            log.error("no embedding, the head abstains: %s\n%s", type(error).__name__, trace)  # noqa: TRY400
        except BaseException:
            breaker.abandon()
            raise
        else:
            breaker.record_success()

    async def _embed(self, encoder: Embedder, settings: EncoderSettings, texts: list[str]) -> Vectors:
        if not isinstance(encoder, RemoteEncoder):
            return await asyncio.to_thread(encoder.embed, texts)
        status, body = await self._upstream.ask(
            settings.replica,
            b"POST",
            encoder.path,
            encoder.request(texts),
            connect=settings.timeout,
            repeatable=True,
        )
        if status != 200:
            raise EncoderError(f"{settings.source}: status {status}")  # the body may repeat the prompt
        return encoder.vectors(body, len(texts))
