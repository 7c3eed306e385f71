"""Asks a drawn share of the requests again. Clients come first: it starts late, stops early, is bounded."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass
from random import Random
from typing import Literal
from weakref import WeakSet

from gateway.budget.ledger import Ledger
from gateway.budget.limits import Limit
from gateway.config.evidence import ShadowSettings
from gateway.errors import BudgetUnavailable, GatewayError, TokensExceeded
from gateway.evidence.opening import ServingState
from gateway.evidence.shadows.asking_again import AskingAgain, ServedRequest
from gateway.evidence.shadows.comparing import Comparing, comparing_of
from gateway.evidence.shadows.drawing import drawn_apart, shadow_limit
from gateway.evidence.shadows.load import PoolLoad
from gateway.evidence.whole_asking import WholeReply
from gateway.evidence.writer import EvidenceWriter
from gateway.http.headers import Headers
from gateway.openai_api.heard_answers import HeardAnswer
from gateway.routing.call import Call, Plan
from gateway.snapshot import Snapshot
from gateway.telemetry.record import Record
from gateway.telemetry.shadow_metrics import ShadowMetrics
from gateway.upstream.dispatch import Upstream
from gateway.upstream.pool import Pool

log = logging.getLogger("thinkmeter.evidence")

ShadowOutcome = Literal[
    "paired",  # a row is written
    "dropped",  # the store took no more rows
    "same",  # it would get the rung, or the length, that the client has got
    "budget",  # the shadow budget has no room, or Redis is away
    "tight",  # a budget of the client's request is nearly spent
    "load",  # the load of clients left no room, or rose
    "crowded",  # as many as there may be are under way
    "unanswered",  # the client left, or got an error or half an answer
    "failed",  # the backend failed, or an answer cannot be compared
    "stopped",  # by a reload or the end of the gateway
]
"""What became of a drawn request. The set is closed."""

_LOOK_SECONDS = 0.05
"""Between two looks at the load while a shadow request runs."""
_AT_ONCE = 4
"""Pairs under way at most, in this process."""
_DRAWN = 64
"""Drawn requests whose answers are on their way to clients, at most."""
_random = Random()  # noqa: S311 - a sample needs no secrecy


class ShadowDraw:
    """A drawn request while its client gets the answer."""

    __slots__ = ("__weakref__", "_shadows", "call", "client", "headers", "heard", "snapshot")

    def __init__(
        self, shadows: Shadows, snapshot: Snapshot, call: Call, *, headers: Headers, client: str
    ) -> None:
        self._shadows = shadows
        self.snapshot, self.call = snapshot, call
        self.headers, self.client = headers, client
        self.heard = HeardAnswer()
        """Takes the answer."""

    def answered(self, record: Record) -> None:
        """The client has its whole answer: ask again, unless something speaks against it. Never waits."""
        self._shadows.begin(self, record)

    def lost(self) -> None:
        """The client gets no whole answer."""
        self._shadows.note(self.call.target.name, "unanswered")


@dataclass(eq=False, slots=True)
class _Running:
    """A pair that is being made."""

    served: ServedRequest
    task: asyncio.Task[None] | None = None
    outcome: ShadowOutcome = "failed"
    cancelled: bool = False


class Shadows:
    """The shadow requests of one gateway, which lives as long as the process."""

    def __init__(
        self,
        writer: EvidenceWriter,
        upstream: Upstream,
        ledger: Ledger,
        metrics: ShadowMetrics,
        gateway: ServingState,
    ) -> None:
        self._writer, self._upstream, self._ledger, self._metrics = writer, upstream, ledger, metrics
        self._gateway = gateway
        self._asking = AskingAgain(upstream, ledger)
        self._loads: defaultdict[str, PoolLoad] = defaultdict(PoolLoad)
        self._own: Counter[str] = Counter()
        """Shadow requests in flight, by model."""
        self._drawn: WeakSet[ShadowDraw] = WeakSet()
        self._running: set[_Running] = set()
        self._watching: asyncio.Task[None] | None = None
        self._terms: tuple[ShadowSettings, Limit, Comparing] | None = None
        """What follows from the settings of the latest pair."""

    def draw(self, plan: Plan, snapshot: Snapshot, headers: Headers, client: str) -> ShadowDraw | None:
        """Draw a request that is about to be sent, by chance; None for most.

        headers: those of the client that the backend gets. client: who it is.
        """
        settings = snapshot.settings.shadow
        if settings is None or self._gateway.draining:
            return None
        pool = plan.call.pool
        if _random.random() >= settings.share:
            self._loads[pool.model].note(pool, self._own[pool.model], time.monotonic())
            return None
        if self._busy(pool) or not drawn_apart(settings, plan):
            return None
        if len(self._drawn) >= _DRAWN or self._ledger.pricing.tight(plan.call.limits):
            return None
        draw = ShadowDraw(self, snapshot, plan.call, headers=headers, client=client)
        self._drawn.add(draw)
        return draw

    def terms(self, plan: Plan, snapshot: Snapshot) -> dict[str, object] | None:
        """How such a request may be drawn, for `/v1/route`; None if it never is."""
        settings = snapshot.settings.shadow
        if settings is None or not drawn_apart(settings, plan):
            return None
        return {"share": settings.share, "against": settings.against}

    async def stop(self) -> None:
        """Drop all that is under way, at once."""
        for running in self._running:
            self._cancel(running, "stopped")
        tasks = [running.task for running in self._running if running.task]
        if self._watching:
            self._watching.cancel()
            tasks.append(self._watching)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._terms:
            self._terms[2].close()

    def note(self, model: str, outcome: ShadowOutcome) -> None:
        """Count what became of a drawn request."""
        self._metrics.count(model, outcome)

    def begin(self, draw: ShadowDraw, record: Record) -> None:
        """Ask again, unless something speaks against it."""
        decision, call, settings = record.decision, draw.call, draw.snapshot.settings.shadow
        if settings is None or decision is None or record.error or (record.cancelled and not record.stopped):
            draw.lost()
            return
        served = ServedRequest(
            *(settings, draw.snapshot, call, draw.headers, draw.client, decision),
            *(draw.heard, record.usage),
        )
        reservation = record.reservation
        shortened = reservation is not None and (reservation.shortened or reservation.fallback is not None)
        against = "tight" if shortened else self._against(served)
        if against is None and len(self._running) >= _AT_ONCE:
            against = "crowded"
        if against is not None:
            self.note(call.target.name, against)
            return
        running = _Running(served)
        self._running.add(running)
        self._metrics.in_flight.inc()
        running.task = asyncio.create_task(self._run(running), name="shadow")
        running.task.add_done_callback(lambda _: self._end(running))
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="shadow-watch")

    def _against(self, served: ServedRequest) -> ShadowOutcome | None:
        """What speaks against asking again now, or against going on with it."""
        if self._gateway.draining or self._gateway.snapshot.settings.shadow != served.settings:
            return "stopped"
        if self._busy(served.call.pool):
            return "load"
        return "tight" if self._ledger.pricing.tight(served.call.limits) else None

    def _busy(self, pool: Pool) -> bool:
        waiting = self._ledger.waiting > 0
        return self._loads[pool.model].busy(pool, self._own[pool.model], time.monotonic()) or waiting

    async def _watch(self) -> None:
        """Cancel pairs as soon as something speaks against them."""
        while self._running:
            await asyncio.sleep(_LOOK_SECONDS)
            for running in list(self._running):
                if (against := self._against(running.served)) is not None:
                    self._cancel(running, against)

    def _cancel(self, running: _Running, outcome: ShadowOutcome) -> None:
        if not running.cancelled and running.task:
            running.cancelled, running.outcome = True, outcome
            running.task.cancel()

    async def _run(self, running: _Running) -> None:
        """Make one pair. Only a cancellation is raised."""
        try:
            running.outcome = await self._pair(running.served)
        except (TokensExceeded, BudgetUnavailable):
            running.outcome = "budget"
        except GatewayError as error:
            log.info("no shadow pair: %s (%s)", error.message, error.detail)
        except Exception as error:  # noqa: BLE001 - logged without its text, which may quote a prompt
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("no shadow pair: %s\n%s", type(error).__name__, trace)  # noqa: TRY400

    def _end(self, running: _Running) -> None:
        """Not in `_run`, as a task that is cancelled at once never runs."""
        self._running.discard(running)
        self._metrics.in_flight.dec()
        self.note(running.served.call.target.name, running.outcome)

    async def _pair(self, served: ServedRequest) -> ShadowOutcome:
        _, limit, comparing = self._terms_of(served)
        model, reply = served.call.target.name, WholeReply()
        plan = await self._asking.plan(served, limit)
        if plan is None:
            return "same"
        try:
            self._own[model] += 1
            try:
                await self._asking.ask(served, plan, reply)
            finally:
                self._own[model] -= 1
            row = await self._asking.pair(served, plan, comparing, reply)
        finally:
            self._metrics.count_tokens(model, "prompt", reply.usage.prompt)
            self._metrics.count_tokens(model, "completion", reply.usage.completion)
        return "paired" if self._writer.put(row) else "dropped"

    def _terms_of(self, served: ServedRequest) -> tuple[ShadowSettings, Limit, Comparing]:
        settings = served.settings
        if self._terms is None or self._terms[0] != settings:
            if self._terms:
                self._terms[2].close()
            limit = shadow_limit(settings.budget, served.snapshot.settings.redis.prefix)

            def count_tokens(model: str, tokens: int) -> None:
                self._metrics.count_tokens(model, "judge", tokens)

            comparing = comparing_of(settings, self._upstream, self._ledger, limit, count_tokens)
            self._terms = settings, limit, comparing
        return self._terms
