"""A primary and its replica: the primary dies or steps down, and the replica takes over its address."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.store.commands import JournalEntry, ReserveCommand, window
from gateway.store.connection import StoreUnavailable
from gateway.store.store import Store
from tests.redis import RealRedis, binaries, delivered, real_redis, reserved, running_store
from tests.redis_cluster import catch_up, until
from tests.serving import free_port

WINDOW = window("{thinkmeter}", "b", 60, "*", 1_000)
COMMAND = ReserveCommand((WINDOW,), (0,), ((100,),), minimum=100)


@pytest.fixture(params=list(binaries()))
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[RealRedis, RealRedis]]:
    """A primary and a replica that follows it."""
    path, port = binaries()[request.param], str(free_port())
    with (
        real_redis(path, port=port, appendonly="yes", repl_diskless_sync_delay="0") as primary,
        real_redis(path, replicaof=f"127.0.0.1 {port}", appendonly="yes") as replica,
    ):
        until(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up")
        yield primary, replica


@pytest.fixture
async def store(pair: tuple[RealRedis, RealRedis]) -> AsyncIterator[Store]:
    async with running_store(f"unix://{pair[0].folder}/s", lease=60, timeout=0.5) as running:
        yield running


def take_over(primary: RealRedis, replica: RealRedis) -> None:
    """Promote the replica, and make the primary's address lead to it."""
    replica.ask("REPLICAOF", "NO", "ONE")
    (replica.folder / "s").replace(primary.folder / "s")


async def state(store: Store) -> tuple[int, int] | None:
    """Settled and reserved tokens; None while Redis is away."""
    with contextlib.suppress(StoreUnavailable):
        await delivered(store)
        _, (found,) = await store.status([WINDOW])
        return found.settled, found.reserved
    return None


async def reaches(store: Store, settled: int, reserved: int) -> None:
    end = time.monotonic() + 20
    while (found := await state(store)) != (settled, reserved):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.05)


async def test_the_primary_is_killed(pair: tuple[RealRedis, RealRedis], store: Store) -> None:
    """Settlements and renewals that only the dead primary had are redelivered to its successor."""
    primary, replica = pair
    ids = [(await reserved(store, COMMAND))[0] for _ in range(3)]
    store.journal.settle(ids[0], COMMAND.windows, [(10, 0)])
    assert await state(store) == (10, 200)
    await asyncio.to_thread(catch_up, primary, replica)
    replica.send(signal.SIGSTOP)
    primary.ask("CLIENT KILL", "TYPE", "replica")
    running, _ = await reserved(store, COMMAND)
    store.journal.settle(ids[1], COMMAND.windows, [(30, 0)])
    store.journal.renew([JournalEntry("renew", running, COMMAND.windows, [(100, 20)])])
    assert await state(store) == (40, 200)
    primary.stop(signal.SIGKILL)
    replica.send(signal.SIGCONT)
    take_over(primary, replica)

    await reaches(store, 40, 200)


async def test_the_primary_steps_down(pair: tuple[RealRedis, RealRedis], store: Store) -> None:
    """A primary that becomes a replica keeps its connections; the gateway still finds the new primary."""
    primary, replica = pair
    id_, _ = await reserved(store, COMMAND)
    store.journal.settle(id_, COMMAND.windows, [(10, 0)])
    assert await state(store) == (10, 0)
    await asyncio.to_thread(catch_up, primary, replica)
    with contextlib.closing(primary.client()) as client:
        client.ping()  # connects while the address still leads there
        take_over(primary, replica)
        client.replicaof("127.0.0.1", 1)

    assert (await reserved(store, COMMAND))[1].candidate
    await reaches(store, 10, 100)


async def test_forgotten_settlements(store: Store, pair: tuple[RealRedis, RealRedis]) -> None:
    """The latest settlements are redelivered to a Redis that lost everything, even without new requests."""
    for _ in range(3):
        id_, _ = await reserved(store, COMMAND)
        store.journal.settle(id_, COMMAND.windows, [(50, 0)])
    assert await state(store) == (150, 0)
    pair[0].ask("FLUSHALL")

    await reaches(store, 150, 0)
