"""Asking each backend what it really does. Documentation and versions promise much; only a request tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from gateway.config.models import Model
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.openai_api.errors import read_error
from gateway.openai_api.model_cards import read_context
from gateway.openai_api.requests import Fields, Request, encode, parse_chat
from gateway.openai_api.responses import read_usage
from gateway.openai_api.usage import SLACK, TokenUsage
from gateway.routing.tiers import Length, TierLadder
from gateway.upstream.causes import status_cause
from gateway.upstream.dispatch import Upstream
from gateway.upstream.errors import backend_error
from gateway.upstream.health import HealthChecks
from gateway.upstream.pool import Backend, Pool, pools_of

FAILED = frozenset({"no", "missing", "refused", "ignored", "too long", "unreadable"})
"""Results that make the probe fail."""

_PROMPT = "What is the sum of all primes below 60? Think it through step by step before you answer."
_TINY_BUDGET = 8
_ROOM = 256


@dataclass(frozen=True, slots=True)
class Finding:
    """One question to one backend: what was asked, the result in a word, and what was seen."""

    model: str
    backend: str
    check: str
    result: str
    detail: str = ""


async def probe_all(settings: Settings) -> list[Finding]:
    """Every check on every backend of a configuration, in its order."""
    upstream, pools = Upstream(), pools_of(settings)
    backends = [(pool, backend) for pool in pools.values() for backend in pool.backends]
    await HealthChecks(upstream, lambda: backends).check()
    try:
        probes = [_Probe(upstream, settings, pool, backend) for pool, backend in backends]
        return [finding for found in await asyncio.gather(*(p.run() for p in probes)) for finding in found]
    finally:
        upstream.close()


class _Probe:
    """The questions to one backend."""

    def __init__(self, upstream: Upstream, settings: Settings, pool: Pool, backend: Backend) -> None:
        self._upstream = upstream
        self._settings = settings
        self._pool = pool
        self._backend = backend
        model: Model = settings.models[pool.model]
        self._family = settings.families[model.family]
        self._ladder = TierLadder.of(model, settings.tiers_of(model), self._family)

    async def run(self) -> list[Finding]:
        return [finding async for finding in self._findings()]

    def _found(self, check: str, result: str, detail: str = "") -> Finding:
        return Finding(self._pool.model, self._backend.name, check, result, detail)

    async def _findings(self) -> AsyncIterator[Finding]:
        if not self._backend.healthy:
            yield self._found("alive", "no", str(self._backend.cause))
            return
        yield self._found("alive", "yes")
        yield await self._serves_model()
        if not self._ladder.changes_requests:
            return
        for finding in self._tiers_fit():
            yield finding
        if self._family.no_thinking is not None:
            yield await self._thinking_off()
        if self._ladder.enforces_thinking_budget:
            for temperature in (0.0, 0.7):
                yield await self._tiny_budget(temperature)
        if self._family.efforts:
            tiers = zip(self._ladder.names, self._ladder.tiers, self._ladder.efforts, strict=True)
            for name, tier, effort in tiers:
                if tier.thinking:
                    yield await self._effort(name, effort)

    def _tiers_fit(self) -> Iterator[Finding]:
        context = self._backend.context
        for length in self._ladder.named_lengths:
            needed = length.thinking + length.answer
            if context and needed > context:
                detail = f"{needed} tokens, context {context}: will be cut"
                yield self._found(f"tier {length.name} fits", "too long", detail)

    async def _serves_model(self) -> Finding:
        try:
            connect = self._pool.timeouts.connect
            status, body = await self._upstream.ask(
                self._backend.replica, b"GET", "/v1/models", connect=connect
            )
        except GatewayError as error:
            return self._found("model", "no", error.detail or error.message)
        if not 200 <= status < 300:
            return self._found("model", "no", str(status_cause(status, "/v1/models")))
        name, context = self._pool.served_name, read_context(body, self._pool.served_name)
        if encode(name) not in body:
            return self._found("model", "missing", f"{name} is not in /v1/models")
        return self._found("model", "yes", f"{name}, context {context or 'not stated'}")

    async def _thinking_off(self) -> Finding:
        answer = await self._ask(self._ladder.names[0], Length(0, _ROOM), 0.0)
        if isinstance(answer, str):
            return self._found("thinking off", "refused", answer)
        if answer.reasoning:
            return self._found("thinking off", "ignored", f"{answer.reasoning} reasoning tokens")
        return self._found("thinking off", "holds", f"{answer.completion} tokens, none of reasoning")

    async def _tiny_budget(self, temperature: float) -> Finding:
        check = f"thinking_token_budget {_TINY_BUDGET}, temperature {temperature:g}"
        answer = await self._ask(
            self._ladder.names[-1], Length(_TINY_BUDGET, _TINY_BUDGET + _ROOM), temperature
        )
        if isinstance(answer, str):
            return self._found(check, "refused", answer)
        if not answer.reasoning:
            return self._found(check, "unclear", "no reasoning was seen: is a reasoning parser set?")
        held = answer.reasoning <= _TINY_BUDGET + SLACK
        return self._found(check, "holds" if held else "ignored", f"{answer.reasoning} reasoning tokens")

    async def _effort(self, tier: str, effort: str) -> Finding:
        answer = await self._ask(tier, Length(4 * _ROOM, 5 * _ROOM), 0.0)
        if isinstance(answer, str):
            return self._found(f"effort {effort} ({tier})", "refused", answer)
        return self._found(
            f"effort {effort} ({tier})", "accepted", f"{answer.reasoning or 0} reasoning tokens"
        )

    async def _ask(self, tier: str, length: Length, temperature: float) -> TokenUsage | str:
        """The tokens of an answer at a tier of this length, or why there is none."""
        messages = [{"role": "user", "content": _PROMPT}]
        body = {"model": self._pool.served_name, "messages": messages, "temperature": temperature}
        request: Request = parse_chat(encode(body))
        fields: Fields = self._ladder.apply(request.fields, self._ladder.index(tier), length)
        try:
            async with asyncio.timeout(self._settings.timeouts.total):
                status, answer = await self._upstream.ask(
                    self._backend.replica,
                    b"POST",
                    "/v1/chat/completions",
                    encode(fields),
                    connect=self._pool.timeouts.connect,
                )
        except GatewayError as error:
            return error.detail or error.message
        except TimeoutError:
            return "timeout"
        if status != 200:
            failure = backend_error(status, answer, retry_after=1)
            said = read_error(answer).message or failure.message  # about our own prompt, so it may be shown
            return f"status {status}: {said}"
        return read_usage(answer) or "the answer cannot be read"
