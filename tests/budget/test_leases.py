"""Reservations of running, dead and cancelled requests, and how long keys stay in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest

from gateway.store.commands import JournalEntry, ReserveCommand, window
from gateway.store.store import Store
from tests.budget.stores import COMMAND, WINDOW
from tests.redis import (
    FAKE_CLOCK,
    FAKE_TIME,
    PATIENT,
    RealRedis,
    reserved,
    running_store,
    until_down,
    until_up,
    use,
)


async def test_restarted_empty(store: Store, server: RealRedis) -> None:
    """Renewals restore the reservations of running requests in a Redis that lost everything."""
    id_, _ = await store.reserve(COMMAND)
    with contextlib.closing(server.client()) as client:
        client.flushall()
    store.journal.renew([JournalEntry("renew", id_, COMMAND.windows, [(100, 20)])])
    assert await use(store, WINDOW) == (0, 100)
    store.journal.settle(id_, COMMAND.windows, [(60, 0)])
    assert await use(store, WINDOW) == (60, 0)


async def test_renewed_twice_in_one_batch(store: Store) -> None:
    """A batch may have a redelivered and a later renewal of one request: its tokens are reserved once."""
    id_, _ = await reserved(store, COMMAND)
    store.journal.renew([JournalEntry("renew", id_, COMMAND.windows, [(100, tokens)]) for tokens in (20, 30)])
    assert await use(store, WINDOW) == (0, 100)
    store.journal.settle(id_, COMMAND.windows, [(60, 0)])

    assert await use(store, WINDOW) == (60, 0)


async def test_dead_gateway(server: RealRedis) -> None:
    """Reservations of a dead gateway hold until their leases expire, then count as last reported."""
    async with running_store(server.url, gateway_id="dead", lease=1) as dead:
        reported, _ = await dead.reserve(COMMAND)
        await dead.reserve(COMMAND)
        dead.journal.renew([JournalEntry("renew", reported, COMMAND.windows, [(100, 25)])])
        assert await use(dead, WINDOW) == (0, 200)
    async with running_store(server.url, gateway_id="alive", lease=1) as alive:
        assert await use(alive, WINDOW) == (0, 200)
        await asyncio.sleep(1.1)
        _, (found,) = await alive.status([WINDOW])
        assert found.stale == 200
        for _ in range(2):  # the first begins the grace period, the second ends it
            id_, _ = await reserved(alive, COMMAND)
            alive.journal.settle(id_, COMMAND.windows, [(0, 0)])
            await asyncio.sleep(0.6)

        assert await use(alive, WINDOW) == (25 + 100, 0)


async def test_away_for_longer_than_the_lease(server: RealRedis) -> None:
    """After an outage longer than the lease, reservations of live gateways still hold."""
    options = {"clock": FAKE_CLOCK, "lease": 2, "timeout": PATIENT}
    server.ask("SET", FAKE_TIME, 1_000_000)
    async with (
        running_store(server.url, gateway_id="one", **options) as one,
        running_store(server.url, gateway_id="two", **options) as two,
    ):
        ids = [(await reserved(one, COMMAND))[0] for _ in range(10)]
        renewals = [JournalEntry("renew", id_, COMMAND.windows, [(100, 20)]) for id_ in ids]
        one.journal.renew(renewals)
        assert await use(one, WINDOW) == (0, 1_000)
        server.stop(signal.SIGKILL)
        await until_down(one, COMMAND)
        server.start()
        server.ask("SET", FAKE_TIME, 1_030_000)
        _, grant = await reserved(two, COMMAND)
        await until_up(one)
        one.journal.renew(renewals)

        assert grant.candidate == 0
        assert await use(one, WINDOW) == (0, 1_000)
        for id_ in ids:
            one.journal.settle(id_, COMMAND.windows, [(100, 0)])
        assert await use(one, WINDOW) == (1_000, 0)


async def test_cancelled_callers_hold_nothing(store: Store) -> None:
    """A caller that is cancelled at any moment of its reservation leaves no tokens reserved."""
    for delay in [0, 0.0001, 0.0003, 0.001, 0.002, 0.005] * 5:
        task = asyncio.create_task(store.reserve(COMMAND))
        await asyncio.sleep(delay)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            store.journal.settle((await task)[0], COMMAND.windows, [(0, 0)])
    assert await use(store, WINDOW) == (0, 0)


async def test_keys_expire(store: Store, server: RealRedis) -> None:
    """Every key expires, except the caps set by an admin."""
    short = window("{thinkmeter}", "short", 1, "*", 1_000)
    ask = ReserveCommand((short, WINDOW), (0, 0), ((100,), (100,)))
    id_, _ = await store.reserve(ask)
    await store.reserve(ask)
    store.journal.settle(id_, ask.windows, [(10, 0)] * 2)
    await store.top_up(WINDOW, 5)
    await use(store, WINDOW)
    with contextlib.closing(server.client()) as client:
        left = {key: client.pttl(key) for key in client.scan_iter("*") if b"caps" not in key}

    assert len(left) == 6  # hash and leases of both windows, the journal, the probe
    assert all(milliseconds > 0 for milliseconds in left.values())


async def test_nothing_is_limited_by_a_window_it_wants_nothing_of(store: Store) -> None:
    """A request without tokens, such as an embedding under a completion budget, passes an overrun window."""
    id_, _ = await reserved(store, COMMAND)
    store.journal.settle(id_, COMMAND.windows, [(5_000, 0)])
    assert await use(store, WINDOW) == (5_000, 0)

    _, reply = await reserved(store, ReserveCommand((WINDOW,), (0,), ((0,),)))

    _, (state,) = await store.status([WINDOW])
    assert (reply.candidate, reply.blocker, state.limited) == (1, 0, 0)
