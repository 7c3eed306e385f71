"""Asks a model for the answers of a run: through its replicas, with a constant number of requests at a time.

A request that fails is sent again, and then marked. While no replica can be reached the run waits, since
nothing can be learnt from the requests that it would send meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct, field

from gateway.budget.ledger import Ledger
from gateway.budget.limits import Limit
from gateway.budget.reservation import Outcome, Reservation
from gateway.budget.waiting import Turn
from gateway.errors import (
    BackendOverloaded,
    BudgetUnavailable,
    GatewayError,
    InvalidRequest,
    NoBackend,
    RequestQuarantined,
    TokensExceeded,
)
from gateway.evidence.measuring.forcing import call_of, planned_at, whole_demand
from gateway.evidence.measuring.journal import MeasuredAnswer
from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.evidence.measuring.replies import answer_text
from gateway.evidence.measuring.work import AnswerKey, MeasuredRung
from gateway.openai_api.endpoints import CHAT
from gateway.openai_api.requests import encode
from gateway.openai_api.responses import read_usage
from gateway.openai_api.usage import TokenUsage
from gateway.routing.call import Plan, Target
from gateway.routing.drafts import Draft
from gateway.snapshot import Snapshot
from gateway.upstream.dispatch import Upstream
from gateway.upstream.prompt_counts import PromptCounts
from gateway.upstream.request import UpstreamRequest
from gateway.upstream.response import UpstreamResponse

_WHOLE = 1 << 26  # bytes; longer answers are read in parts
_PAUSES = (1.0, 5.0)
"""Seconds before each further attempt."""
_LONGEST_PAUSE = 10.0
_QUEUE = Turn(0.0, 0)


class RunStopped(Exception):  # noqa: N818 - it is no fault of the program
    """The run cannot go on now. What it has is kept, and it can be continued."""


class AskingTerms(Struct, frozen=True):
    """How a run asks."""

    concurrency: int
    """Requests at a time."""
    fields: Mapping[str, Any] = {}
    """Sent with every request."""
    limits: tuple[Limit, ...] = ()
    """The budgets that the tokens count against."""
    patience: float = 300.0
    """Seconds to wait for a replica, or for Redis, before the run stops."""
    pauses: tuple[float, ...] = field(default_factory=lambda: _PAUSES)


class _Reply(Struct):
    body: bytes = b""
    plan: Plan | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)


class Asking:
    """Asks for answers and gives each to `keep`."""

    def __init__(
        self,
        snapshot: Snapshot,
        target: Target,
        upstream: Upstream,
        terms: AskingTerms,
        keep: Callable[[MeasuredAnswer], None],
        *,
        ledger: Ledger | None = None,
    ) -> None:
        """ledger: reserves and settles the tokens under `terms.limits`."""
        self._snapshot, self._target, self._upstream = snapshot, target, upstream
        self._pool = snapshot.pools[target.name]
        self._terms, self._keep, self._ledger = terms, keep, ledger
        self._counts = PromptCounts(upstream)
        self._lost = 0  # answers in a row that ended in an error

    async def ask(
        self,
        keys: Iterable[AnswerKey],
        prompts: Mapping[str, MeasuredPrompt],
        rungs: Mapping[str, MeasuredRung],
    ) -> None:
        """Get all answers. When it is cancelled, the requests under way are too.

        Raises: RunStopped.
        """
        waiting = iter(keys)

        async def work() -> None:
            for key in waiting:
                self._take(await self._answer(key, prompts[key.prompt], rungs[key.rung]))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._terms.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as group:
            raise _cause(group) from None

    def _take(self, answer: MeasuredAnswer) -> None:
        self._keep(answer)
        self._lost = 0 if answer.error is None else self._lost + 1
        if self._lost >= max(20, 2 * self._terms.concurrency):
            raise RunStopped(f"the last {self._lost} requests all failed: {answer.error}")

    async def _answer(self, key: AnswerKey, prompt: MeasuredPrompt, rung: MeasuredRung) -> MeasuredAnswer:
        """One answer, or what went wrong. Raises: RunStopped."""
        pauses, said = iter(self._terms.pauses), ""
        while True:
            begun = time.monotonic()
            reply = _Reply()
            error = await self._try(prompt, rung, reply)
            if error is None:
                return _read(key, reply, time.monotonic() - begun)
            quarantined = isinstance(error, RequestQuarantined)
            if not (quarantined and said):  # what it is quarantined for says more
                said = f"{error.code}: {error.message}{f' ({error.detail})' if error.detail else ''}"
            pause = next(pauses, None)
            if pause is None or isinstance(error, InvalidRequest):
                return MeasuredAnswer(*key, time.time(), time.monotonic() - begun, error=said)
            if quarantined:
                pause = min(max(pause, error.retry_after or 0), _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _try(self, prompt: MeasuredPrompt, rung: MeasuredRung, reply: _Reply) -> GatewayError | None:
        """Send a request, and wait where waiting helps. Raises: RunStopped."""
        since = time.monotonic()
        while True:
            try:
                await self._send(prompt, rung, reply)
            except TokensExceeded as error:
                if error.retry_after is None:
                    raise RunStopped(error.message) from None
                await asyncio.sleep(min(error.retry_after, 60))
            except (NoBackend, BackendOverloaded, BudgetUnavailable) as error:
                if isinstance(error, RequestQuarantined):
                    return error
                if time.monotonic() - since > self._terms.patience:
                    raise RunStopped(f"{error.message} ({error.detail or error.code})") from None
                await asyncio.sleep(min(error.retry_after or 1, 5))
            except GatewayError as error:
                return error.detached()
            else:
                return None

    async def _send(self, prompt: MeasuredPrompt, rung: MeasuredRung, reply: _Reply) -> None:
        """Send one request at a rung, under the budgets. Raises: GatewayError."""
        terms = self._terms
        call = call_of(
            prompt,
            self._target,
            self._pool,
            self._snapshot.settings,
            limits=terms.limits,
            fields=terms.fields,
        )
        plan = planned_at(call, rung.index, self._snapshot.router.predictor)
        if not plan.fits:
            plan = plan.beside(await self._counts.of(self._pool, len(call.body), plan.count_request))
        if self._ledger is None or not terms.limits:
            await self._forward(plan, prompt.id, reply)
            return
        reservation = await self._ledger.begin(terms.limits, whole_demand(plan), _QUEUE)
        tried: list[str] = []
        try:
            if reservation.shortened:  # Redis is away, and the budget grants less meanwhile
                raise BudgetUnavailable("The budget cannot hold a whole answer while Redis is away")
            await self._forward(plan.granted(reservation), prompt.id, reply, tried)
        except BaseException as error:
            _settle(reservation, reply.usage, len(tried))
            self._ledger.end(reservation, error)
            raise
        _settle(reservation, reply.usage, len(tried), answered=True)
        self._ledger.end(reservation, None)

    async def _forward(self, plan: Plan, client: str, reply: _Reply, tried: list[str] | None = None) -> None:
        body = encode(plan.fields())
        request = UpstreamRequest(CHAT.path, body, [], client=client, received=body, whole_bytes=_WHOLE)
        if tried is not None:
            request.tried = tried
        request.draft = draft = Draft(plan)

        async def read(response: UpstreamResponse) -> None:
            if response.complete:
                reply.body = response.body
            else:
                reply.body = b"".join([block async for block in response.blocks()])
            reply.plan, reply.usage = draft.plan, read_usage(reply.body) or TokenUsage()

        await self._upstream.forward(plan.call.pool, request, read)


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Why a run has ended: the first thing that went wrong."""
    first = group.exceptions[0]
    if isinstance(first, OSError):  # the disk is full
        return RunStopped(f"the answers cannot be written: {first.strerror or first}")
    return first


def _settle(reservation: Reservation, usage: TokenUsage, attempts: int, *, answered: bool = False) -> None:
    reservation.outcome = Outcome(usage=usage, attempts=attempts, answered=answered)


def _read(key: AnswerKey, reply: _Reply, seconds: float) -> MeasuredAnswer:
    text, usage, plan = answer_text(reply.body), reply.usage, reply.plan
    if text is None:
        return MeasuredAnswer(*key, time.time(), seconds, error="the response is no chat completion")
    sent = plan is None or not plan.call.enforces_thinking_budget or plan.enforces_thinking_budget
    return MeasuredAnswer(
        *key,
        time.time(),
        seconds,
        text,
        usage.completion,
        usage.reasoning,
        usage.prompt,
        usage.finish_reason,
        sent,
    )
