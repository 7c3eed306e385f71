"""Asking each backend what it really does. Documentation and versions promise much; only a request tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from gateway.cli.probe_judgments import (
    Finding,
    Judgment,
    ProbeAnswer,
    judge_arguments,
    judge_budget,
    judge_separation,
    judge_switch,
    read_answer,
)
from gateway.config.models import Model
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.openai_api.errors import read_error
from gateway.openai_api.model_cards import read_context
from gateway.openai_api.requests import Fields, Request, encode, parse_chat
from gateway.routing.tiers import Length, TierLadder
from gateway.upstream.causes import status_cause
from gateway.upstream.dispatch import Upstream
from gateway.upstream.errors import backend_error
from gateway.upstream.health import HealthChecks
from gateway.upstream.pool import Backend, Pool, pools_of

_PROMPT = "What is the sum of all primes below 60? Think it through step by step before you answer."
_TINY_BUDGET = 8
_ROOM = 256

TOOL_CHECK, SCHEMA_CHECK = "tool call under a tiny budget", "JSON under a tiny budget"
CONSTRAINED_CHECKS = frozenset({TOOL_CHECK, SCHEMA_CHECK})
"""Checks that must be valid before a model may send thinking budgets with tools or a schema."""

_NOTE = (
    "The ferry to the northern islands leaves at seven in the morning, at noon and at four in the afternoon, "
    "except on Sundays, when only the boat at noon runs, and in winter, when storms often keep it in port."
)
_PARAMETERS = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_CONSTRAINTS: dict[str, dict[str, Any]] = {
    # Long arguments, so that a budget is spent in their midst if the model begins them in its thought.
    TOOL_CHECK: {
        "messages": [{"role": "user", "content": f"Call save_note at once with exactly this text: {_NOTE}"}],
        "tools": [{"type": "function", "function": {"name": "save_note", "parameters": _PARAMETERS}}],
    },
    SCHEMA_CHECK: {
        "messages": [{"role": "user", "content": f'Answer {{"text": …}} with exactly this text: {_NOTE}'}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "note", "schema": _PARAMETERS}},
    },
}
_TRIES = ((8, 0.0), (24, 0.0), (48, 0.7))  # budget and temperature


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
        self._allowed = model.budget_with_tools
        self._family = settings.families[model.family]
        tiers = settings.tiers_of(model)
        self._ladder = TierLadder.of(model, tiers, self._family)
        self._unbudgeted = TierLadder(tiers, self._family, sends_thinking_budget=False)
        self._thoughts: list[ProbeAnswer] = []
        """Answers that were asked to think."""

    async def run(self) -> list[Finding]:
        return [finding async for finding in self._findings()]

    def _found(self, check: str, result: str, detail: str = "", advice: str = "") -> Finding:
        return Finding(self._pool.model, self._backend.name, check, result, detail, advice)

    def _judged(self, check: str, judgment: Judgment) -> Finding:
        return self._found(check, judgment.result, judgment.detail, judgment.advice)

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
            answer = await self._ask(self._ladder, self._ladder.names[0], Length(0, _ROOM), 0.0)
            yield self._judged("thinking off", judge_switch(answer, self._family))
        if self._ladder.enforces_thinking_budget:
            async for finding in self._budgets():
                yield finding
        async for finding in self._efforts():
            yield finding
        if judgment := judge_separation(self._thoughts, self._family):
            yield self._judged("thought", judgment)

    async def _budgets(self) -> AsyncIterator[Finding]:
        """Tiny budgets, and whether what must parse survives them if they hold."""
        holds = True
        for temperature in (0.0, 0.7):
            finding = await self._tiny_budget(temperature)
            holds &= finding.result == "holds"
            yield finding
        if holds and self._ladder.forces_thinking_budget:
            for check in _CONSTRAINTS:
                yield await self._constrained(check)

    async def _efforts(self) -> AsyncIterator[Finding]:
        """Every effort. If nothing was answered with a thought so far, also a question without a budget."""
        tiers = zip(self._ladder.names, self._ladder.tiers, self._ladder.efforts, strict=True)
        thinking = [(name, effort) for name, tier, effort in tiers if tier.thinking]
        if self._family.efforts:
            for name, effort in thinking:
                yield await self._thinks(f"effort {effort} ({name})", name, self._ladder)
        if thinking and not self._thoughts:
            yield await self._thinks("thinking on", thinking[-1][0], self._unbudgeted)

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

    async def _tiny_budget(self, temperature: float) -> Finding:
        check = f"thinking_token_budget {_TINY_BUDGET}, temperature {temperature:g}"
        length = Length(_TINY_BUDGET, _TINY_BUDGET + _ROOM)
        answer = await self._think(self._ladder, self._ladder.names[-1], length, temperature)
        return self._judged(check, judge_budget(answer, _TINY_BUDGET, self._family))

    async def _constrained(self, check: str) -> Finding:
        """Ask for an answer that must parse, under budgets that end while it is written."""
        asked, longest = _CONSTRAINTS[check], self._ladder.names[-1]
        answers = [
            await self._ask(self._ladder, longest, Length(budget, budget + 2 * _ROOM), temperature, **asked)
            for budget, temperature in _TRIES
        ]
        schema = check == SCHEMA_CHECK
        return self._judged(
            check, judge_arguments(answers, self._family, schema=schema, allowed=self._allowed)
        )

    async def _thinks(self, check: str, tier: str, ladder: TierLadder) -> Finding:
        context = self._backend.context or 10 * _ROOM
        most = min(5 * _ROOM, context // 2)
        answer = await self._think(ladder, tier, Length(4 * most // 5, most), 0.0)
        if isinstance(answer, str):
            return self._found(check, "refused", answer)
        return self._found(check, "accepted", f"{answer.reasoning} reasoning tokens")

    async def _think(
        self, ladder: TierLadder, tier: str, length: Length, temperature: float
    ) -> ProbeAnswer | str:
        """An answer at a tier that thinks. It is kept, to look for its thought in its text."""
        answer = await self._ask(ladder, tier, length, temperature)
        if isinstance(answer, ProbeAnswer):
            self._thoughts.append(answer)
        return answer

    async def _ask(
        self, ladder: TierLadder, tier: str, length: Length, temperature: float, **asked: Any
    ) -> ProbeAnswer | str:
        """The answer at a tier of this length, or why there is none."""
        messages = [{"role": "user", "content": _PROMPT}]
        body = {"model": self._pool.served_name, "messages": messages, "temperature": temperature} | asked
        request: Request = parse_chat(encode(body))
        fields: Fields = ladder.apply(request.fields, ladder.index(tier), length)
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
        return read_answer(answer) or "the answer cannot be read"
