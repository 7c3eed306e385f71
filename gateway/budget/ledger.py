"""Holds tokens for running requests: reserves them first, renews their leases, settles them at the end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.budget.exposure import Exposures
from gateway.budget.fallback import Fallback
from gateway.budget.limits import Limit
from gateway.budget.observer import BudgetObserver
from gateway.budget.pricing import Pricing
from gateway.budget.reservation import Demand, Reservation, budget_error
from gateway.budget.waiting import Turn, WaitingLine
from gateway.config.settings import Settings
from gateway.errors import (
    BackendDisconnected,
    BackendError,
    BackendTimeout,
    ClientClosed,
    GatewayError,
    TokensExceeded,
)
from gateway.store.commands import JournalEntry, ReserveReply
from gateway.store.connection import RedisConnection, StoreUnavailable
from gateway.store.embedded import RedisServer, RedisServerError, RedisServerStartError
from gateway.store.reading import ReadingConnection
from gateway.store.store import Store

log = logging.getLogger("thinkmeter.budget")

_READING_TIMEOUT = 1.0  # seconds; a reader waits longer for a busy Redis than a request may
_POLL_SECONDS = 0.25  # the longest time between two attempts of a queued request
_SHORTEST_POLL = 0.02  # the shortest
_ENDED_EARLY = (BackendDisconnected, BackendTimeout, ClientClosed)
"""Errors after which a stream has spent what passed of it. After others it cannot be read."""
_PROMPTLY = 1.0
"""Seconds. A backend that fails later than this may have generated the answer and failed to write it."""
_RENEWED_AT_ONCE = 16  # reservations, which takes some 0.2 ms


class Ledger:
    """Reserves and settles tokens under all budgets of a gateway."""

    def __init__(
        self,
        store: Store,
        pricing: Pricing,
        fallback: Fallback,
        observer: BudgetObserver,
        settings: Settings,
        *,
        server: RedisServer | None = None,
    ) -> None:
        """server: the embedded Redis to start and stop, if that is what `store` uses."""
        self.store = store
        self.pricing = pricing
        self.fallback = fallback
        self._observer = observer
        self._server = server
        self._lease = settings.reservations.lease
        self._exposures = Exposures(settings.reservations.p95_overrun)
        self._active: dict[str, Reservation] = {}
        self._line = WaitingLine()
        self._tasks: list[asyncio.Task[None]] = []
        self._started = False
        self._starting: asyncio.Task[None] | None = None
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Use new settings, except for `redis` and the lease, which need a restart."""
        self._needed = settings.counts_tokens
        self.fallback.local_share = settings.reservations.local_share
        self._exposures.share = settings.reservations.p95_overrun

    @property
    def up(self) -> bool:
        """Whether Redis answers, as far as this process knows."""
        return self.store.up

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._line)

    # --- start and stop --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect to Redis if tokens are counted, unless that was done before. Raises: RedisServerError."""
        if self._started or not self._needed:
            return
        self._started = True
        if self._server:
            try:
                await self._server.ensure()
            except RedisServerStartError as error:  # the connection keeps trying
                log.warning("%s: each budget follows its `when_redis_fails` until it works", error)
        await self.store.start()
        self._tasks = [
            asyncio.create_task(self._renew(), name="budget-renew"),
            asyncio.create_task(self.pricing.keep_updating(), name="budget-price"),
        ]

    def start_soon(self) -> None:
        """Start in the background, when a reload has added the first budgets.

        Requests that arrive before it is done follow `when_redis_fails`.
        """
        if self._needed and not self._started:
            self._starting = asyncio.create_task(self._start_late(), name="budget-start")

    async def _start_late(self) -> None:
        try:
            await self.start()
        except RedisServerError:
            log.exception("token budgets unavailable")

    async def stop(self) -> None:
        """Deliver the journal and disconnect. The last gateway stops the embedded server."""
        if self._starting:
            await self._starting
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await self.store.stop()
            if self._server:
                await self._server.leave()

    # --- one request -----------------------------------------------------------------------------------

    async def begin(
        self,
        limits: tuple[Limit, ...],
        demand: Demand,
        queue: Turn,
        meanwhile: Callable[[Reservation], None] = lambda _: None,
    ) -> Reservation:
        """Reserve tokens until `end`. There must be a limit.

        `queue` says how long the request may wait for room, by the configuration that it began with.
        `meanwhile` is called once, while Redis decides, with the reservation of all that is wanted. If that
        is granted, the same reservation is returned.

        Raises: TokensExceeded, InsufficientQuota, BudgetUnavailable.
        """
        demand, claim = self._exposures.claim(limits, demand)
        try:
            reservation = await self._reserve(limits, demand, queue, meanwhile)
        except BaseException:
            self._exposures.release(claim)
            raise
        reservation.claim, reservation.begun = claim, time.monotonic()
        self._active[reservation.id] = reservation
        return reservation

    def end(self, reservation: Reservation, error: BaseException | None) -> None:
        """Settle the reservation's `outcome`. error: what ended the request."""
        refused = unreadable = False
        if isinstance(error, GatewayError):
            late = type(error) is BackendError and time.monotonic() - reservation.begun > _PROMPTLY
            refused = not error.spent and not late
            unreadable = error.spent and not isinstance(error, _ENDED_EARLY)
        del self._active[reservation.id]
        if reservation.claim:
            self._exposures.release(reservation.claim)
        spent = reservation.spent(refused=refused, unreadable=unreadable)
        self.store.journal.settle(reservation.id, reservation.windows, spent)
        for limit, amount, (tokens, _) in zip(reservation.limits, reservation.amounts(), spent, strict=True):
            if tokens > amount:
                self._observer.overran(limit.budget.name, tokens - amount)
        if reservation.local:
            self.fallback.settle(reservation, spent, time.monotonic())

    async def _reserve(
        self,
        limits: tuple[Limit, ...],
        demand: Demand,
        queue: Turn,
        meanwhile: Callable[[Reservation], None],
    ) -> Reservation:
        command, waited = demand.command(limits), 0.0
        granted = tuple([column[0] for column in command.amounts])
        wanted = Reservation("", limits, demand, 0, granted=granted)
        try:
            id_, reply = await self.store.reserve(command, partial(meanwhile, wanted))
            if not reply.candidate:
                started = time.monotonic()
                id_, reply = await self._wait_for_room(limits, demand, reply, queue, started)
                waited = time.monotonic() - started
        except StoreUnavailable as error:
            return self.fallback.reserve(limits, demand, time.monotonic(), cause=error)
        tier, clamp = reply.candidate - 1, reply.clamp
        counted = reply.blocker if (tier or clamp) and reply.blocker else reply.tightest
        self._observer.decided(limits[counted - 1].budget.name, "shortened" if tier or clamp else "granted")
        if not (tier or clamp):
            wanted.id, wanted.reply, wanted.waited = id_, reply, waited
            return wanted
        amounts = None if clamp else tuple([column[tier] for column in command.amounts])
        return Reservation(id_, limits, demand, tier, clamp, reply, None, waited, granted=amounts)

    async def _wait_for_room(
        self, limits: tuple[Limit, ...], demand: Demand, reply: ReserveReply, queue: Turn, started: float
    ) -> tuple[str, ReserveReply]:
        """Try a refused request again until it fits, or has no chance to fit within its time in the queue.

        Raises: TokensExceeded, InsufficientQuota, StoreUnavailable.
        """
        left = queue.seconds
        waiter = self._line.enter(queue) if _worth_waiting(reply, left) else None
        if waiter is None:
            raise self._refused(limits, demand, reply)
        self._observer.decided(limits[reply.blocker - 1].budget.name, "queued")
        try:
            while _worth_waiting(reply, left) and not waiter.ousted:
                await waiter.pause(min(max(reply.wait / 1000, _SHORTEST_POLL), _POLL_SECONDS, left))
                id_, reply = await self.store.reserve(demand.command(limits, again=True))
                if reply.candidate:
                    return id_, reply
                left = queue.seconds - (time.monotonic() - started)
            raise self._refused(limits, demand, reply)
        finally:
            self._line.leave(waiter)

    def _refused(self, limits: tuple[Limit, ...], demand: Demand, reply: ReserveReply) -> TokensExceeded:
        blocker = limits[reply.blocker - 1]
        self._observer.decided(blocker.budget.name, "refused")
        return budget_error(blocker, reply, demand)

    async def _renew(self) -> None:
        """Every fifth of a lease, renew all reservations and report what their streams have spent so far."""
        while True:
            await asyncio.sleep(self._lease / 5)
            entries = []
            for number, reservation in enumerate(list(self._active.values())):
                if number % _RENEWED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # thousands of streams in one turn would delay each other's chunks
                numbers = reservation.renewal()
                entries.append(JournalEntry("renew", reservation.id, reservation.windows, numbers))
            # those that were settled in the meantime must not be reserved again
            self.store.journal.renew([entry for entry in entries if entry.id in self._active])


def _worth_waiting(reply: ReserveReply, left: float) -> bool:
    """Whether a refused request may fit within the next `left` seconds.

    Running requests may give back tokens sooner than the wait in the reply.
    """
    return left > 0 and reply.wait >= 0 and (reply.wait <= left * 1000 or reply.blocker_reserved > 0)


def open_budget(settings: Settings, observer: BudgetObserver) -> Ledger:
    """Build the ledger and what it needs: the Redis connection, the store, the prices and the fallback."""
    redis, reservations = settings.redis, settings.reservations
    server = None if redis.url else RedisServer(Path(redis.directory))
    url = server.url if server else redis.url.get_secret_value() if redis.url else ""
    connection = RedisConnection(
        url,
        prefix=redis.prefix,
        timeout=redis.timeout,
        cluster=redis.cluster,
        observe=observer.redis_called,
        revive=server.revive if server else None,
    )
    reader = ReadingConnection(
        url,
        prefix=redis.prefix,
        timeout=max(redis.timeout, _READING_TIMEOUT),
        cluster=redis.cluster,
        observe=observer.redis_called,
    )
    gateway_id = secrets.token_hex(6)
    store = Store(
        connection, prefix=redis.prefix, lease=reservations.lease, gateway_id=gateway_id, reader=reader
    )
    fallback = Fallback(gateway_id, observer, reservations.local_share)
    return Ledger(store, Pricing(store, observer), fallback, observer, settings, server=server)
