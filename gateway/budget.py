"""The token budget on the path of a request: set aside before it, renew while it runs, settle after it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

from gateway.config.budgets import Policy
from gateway.config.settings import Settings
from gateway.errors import (
    BackendDisconnected,
    BackendTimeout,
    BudgetUnavailable,
    ClientClosed,
    GatewayError,
    TokensExceeded,
)
from gateway.journal import Entry
from gateway.local_window import LocalWindow
from gateway.pricing import TICK, Pricing
from gateway.redis_link import Link, StoreUnavailable
from gateway.redis_server import RedisServer, RedisServerError
from gateway.reservation import Limit, Need, Reservation, refusal, span
from gateway.store import Grant, Store
from gateway.telemetry.metrics import BudgetMetrics

log = logging.getLogger("thinkmeter.budget")

_STRICTNESS: tuple[Policy, ...] = ("open", "degrade", "closed")
_POLL = 0.25  # seconds after which a waiting request asks again at the latest
_UNSURE = (BackendDisconnected, BackendTimeout, ClientClosed)  # the backend may have worked for these


class Ledger:
    """All budgets of a gateway, kept in Redis. One Redis for the life of the process."""

    def __init__(self, settings: Settings, metrics: BudgetMetrics) -> None:
        redis = settings.redis
        self.metrics = metrics
        self.server = None if redis.url else RedisServer(Path(redis.directory))
        url = self.server.url if self.server else redis.url.get_secret_value() if redis.url else ""
        self._replica = secrets.token_hex(6)
        self._lease = settings.reservations.lease
        link = Link(
            url,
            prefix=redis.prefix,
            timeout=redis.timeout,
            cluster=redis.cluster,
            observe=metrics.observe,
            revive=self.server.ensure if self.server else None,
        )
        self.store = Store(link, prefix=redis.prefix, lease=self._lease, replica=self._replica)
        self.pricing = Pricing(self.store, metrics)
        self._active: dict[str, Reservation] = {}
        self._local: dict[str, LocalWindow] = {}
        self._local_ids = itertools.count(1)
        self._waiting = 0
        self._started = False
        self._tasks: list[asyncio.Task[None]] = []
        self._starting: asyncio.Task[None] | None = None
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take new settings; `redis` and the lease stay as they were."""
        self._reservations, self._queue = settings.reservations, settings.queue
        self._wanted = bool(settings.budgets)

    @property
    def up(self) -> bool:
        return self.store.link.up

    async def start(self) -> None:
        """Start the embedded server and connect, if there are budgets and it has not been done."""
        if self._started or not self._wanted:
            return
        self._started = True
        if self.server:
            await self.server.ensure()
        await self.store.start()
        self._tasks = [
            asyncio.create_task(self._renew(), name="budget-renew"),
            asyncio.create_task(self._keep_pricing(), name="budget-price"),
        ]

    def start_soon(self) -> None:
        """As `start`, after a reload: requests under the new budgets meet a Redis that is away until then."""
        if self._wanted and not self._started:
            self._starting = asyncio.create_task(self._start_late(), name="budget-start")

    async def _start_late(self) -> None:
        try:
            await self.start()
        except RedisServerError:
            log.exception("the budgets cannot be kept")

    async def stop(self) -> None:
        """Deliver what was spent; the last gateway stops the embedded server."""
        if self._starting:
            await self._starting
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await self.store.stop()
            if self.server:
                await self.server.leave()

    def hold(self, limits: tuple[Limit, ...], need: Need) -> AbstractAsyncContextManager[Reservation | None]:
        """Reserve tokens for the block, and settle the reservation's `outcome` however the block ends.

        Without limits there is nothing to reserve, and the block gets None.

        Raises: TokensExceeded, InsufficientQuota, BudgetUnavailable (on entering).
        """
        return self._held(limits, need) if limits else nullcontext()

    @asynccontextmanager
    async def _held(self, limits: tuple[Limit, ...], need: Need) -> AsyncIterator[Reservation]:
        reservation = await self._reserve(limits, need)
        self._active[reservation.id] = reservation
        refused = False
        try:
            yield reservation
        except GatewayError as error:
            refused = not isinstance(error, _UNSURE)
            raise
        finally:
            del self._active[reservation.id]
            self._settle(reservation, refused=refused)

    async def _reserve(self, limits: tuple[Limit, ...], need: Need) -> Reservation:
        begun, queued = time.monotonic(), False
        try:
            while True:
                try:
                    id_, grant = await self.store.reserve(need.ask(limits, again=queued))
                except StoreUnavailable as error:
                    return self._fall_back(limits, need, error)
                waited = time.monotonic() - begun if queued else 0.0
                if grant.candidate:
                    reservation = Reservation(id_, limits, need, grant.candidate - 1, grant.clamp, grant)
                    reservation.waited = waited
                    self._count(reservation, grant)
                    return reservation
                blocker, left = limits[grant.blocker - 1], self._queue.seconds - waited
                hopeless = grant.wait < 0 or (grant.wait > left * 1000 and not grant.blocker_reserved)
                if left <= 0 or hopeless or (not queued and self._waiting >= self._queue.requests):
                    self.metrics.decided(blocker.budget.name, "refused")
                    raise refusal(blocker, grant, need)
                if not queued:
                    self.metrics.decided(blocker.budget.name, "queued")
                    queued = True
                    self._waiting += 1
                await asyncio.sleep(min(max(grant.wait / 1000, 0.02), _POLL, left))
        finally:
            self._waiting -= queued

    def _count(self, reservation: Reservation, grant: Grant) -> None:
        shortened = reservation.shortened()
        at = grant.blocker if shortened and grant.blocker else grant.tightest
        self.metrics.decided(reservation.limits[at - 1].budget.name, "shortened" if shortened else "granted")

    def _fall_back(self, limits: tuple[Limit, ...], need: Need, cause: Exception) -> Reservation:
        """What the strictest of the budgets says for a Redis that is away."""
        policy = max((limit.budget.when_redis_fails for limit in limits), key=_STRICTNESS.index)
        self.metrics.fell_back(policy)
        if policy == "closed":
            raise BudgetUnavailable(
                "The token budget cannot be checked right now", retry_after=1, detail=str(cause)
            )
        id_ = f"{self._replica}-local-{next(self._local_ids)}"
        reservation = Reservation(id_, limits, need, need.wanted, fallback=policy)
        if policy == "degrade":
            reservation.step = len(need.steps) - 1
            self._reserve_locally(reservation)
        return reservation

    def _reserve_locally(self, reservation: Reservation) -> None:
        now, taken = time.monotonic(), list[tuple[LocalWindow, int]]()
        for limit, amount in zip(reservation.limits, reservation.amounts(), strict=True):
            window = self._local_window(limit)
            if not window.reserve(amount, now):
                for other, tokens in taken:
                    other.settle(tokens, 0, now)
                self.metrics.decided(limit.budget.name, "refused")
                raise TokensExceeded(
                    f"The {limit} is degraded: its store is away, and {window.cap:,} tokens in "
                    f"{span(limit.budget.window)} are all that this gateway may spend alone",
                    retry_after=1,
                )
            taken.append((window, amount))
        reservation.local = [amount for _, amount in taken]

    def _local_window(self, limit: Limit) -> LocalWindow:
        cap = int(limit.budget.tokens * self._reservations.local_share)
        known = self._local.setdefault(limit.window.key, LocalWindow(cap, limit.budget.window))
        known.cap = cap
        return known

    def _settle(self, reservation: Reservation, *, refused: bool) -> None:
        numbers = reservation.spent(refused=refused)
        windows = tuple(limit.window for limit in reservation.limits)
        self.store.journal.settle(reservation.id, windows, numbers)
        for limit, amount, (tokens, _) in zip(
            reservation.limits, reservation.amounts(), numbers, strict=True
        ):
            if tokens > amount:
                self.metrics.overran(limit.budget.name, tokens - amount)
        now = time.monotonic()
        for limit, amount, (tokens, _) in zip(reservation.limits, reservation.local, numbers, strict=False):
            self._local_window(limit).settle(amount, tokens, now)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 5)
            self.store.journal.renew(
                [
                    Entry(
                        "renew",
                        reservation.id,
                        tuple(limit.window for limit in reservation.limits),
                        reservation.renewal(),
                    )
                    for reservation in self._active.values()
                ]
            )

    async def _keep_pricing(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.pricing.tick()
            except Exception:  # a price that stays is better than a price that is never set again
                log.exception("pricing failed")
