"""Budgets in a Redis Cluster: all keys in one slot, which moves, and whose primary dies, hangs or lags."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.store.commands import ReserveCommand, Window, window
from gateway.store.connection import StoreUnavailable
from gateway.store.store import Store
from tests.fakes.backend import Backend
from tests.redis import RealRedis, reserved, running_store, until_down, until_up, use
from tests.redis_cluster import Cluster, catch_up, real_cluster
from tests.serving import configuration, serving


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One cluster for all tests of this file."""
    with real_cluster() as running:
        yield running


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[Store]:
    name = secrets.token_hex(4)  # the cluster remembers the journals of other tests
    async with running_store(cluster.url, cluster=True, lease=60, gateway_id=name, timeout=0.5) as running:
        await until_up(running)
        yield running


def ask_of(name: str, tokens: int = 1_000) -> ReserveCommand:
    """A command for 100 tokens of the budget with this name."""
    return ReserveCommand((window("{thinkmeter}", name, 60, "*", tokens),), (0,), ((100,),), minimum=100)


@pytest.mark.usefixtures("patient_redis")
async def test_requests(backend: Backend, cluster: Cluster) -> None:
    """A gateway with `cluster: true` serves and settles requests. One node has all the keys."""
    budgets = [{"name": name, "window": "1m", "tokens": 3_000} for name in ("one", "two")]
    redis = {"url": cluster.url, "cluster": True}
    async with serving(
        configuration(backend.url, redis=redis, head="baseline", price=0, budgets=budgets)
    ) as gateway:
        answers = [await gateway.chat("hello") for _ in range(3)]
        spent = sum([(await answer.json())["usage"]["completion_tokens"] for answer in answers])
        limits = gateway.gateway.snapshot.budgets.limits

        assert {answer.headers.get("x-ratelimit-limit-tokens") for answer in answers} == {"3000"}
        for limit in limits.values():
            assert await use(gateway.gateway.ledger.store, limit.window) == (spent, 0)
    holders = [node for node in cluster.nodes[:3] if node.ask("DBSIZE")]
    assert holders == [cluster.primary_of(limits["one", "*"].window.key)]


async def test_round_trips_are_shared(store: Store, cluster: Cluster) -> None:
    """All reservations of one event-loop tick share a script call, which grants exactly what fits."""
    ask = ask_of("shared", 5_000)
    primary = cluster.primary_of(ask.windows[0].key)
    primary.ask("CONFIG RESETSTAT")
    replies = await asyncio.gather(*(store.reserve(ask) for _ in range(120)))

    assert sum(grant.candidate for _, grant in replies) == 50
    assert primary.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"] <= 3
    assert await use(store, ask.windows[0]) == (0, 5_000)


async def test_the_slot_moves(store: Store, cluster: Cluster) -> None:
    """While the slot moves to another primary and back, requests go on; no token is lost or counted twice."""
    ask = ask_of("moved", 1_000_000)
    key = ask.windows[0].key
    there, moving, settled = cluster.primary_of(key), True, 0

    async def client() -> None:
        nonlocal settled
        while moving:
            with contextlib.suppress(StoreUnavailable):
                id_, grant = await store.reserve(ask)
                assert grant.candidate
                store.journal.settle(id_, ask.windows, [(7, 0)])
                settled += 7
            await asyncio.sleep(0.001)

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for to in (next(node for node in cluster.nodes[:3] if node is not there), there):
        await asyncio.sleep(0.2)
        await asyncio.to_thread(cluster.move, key, to)
    await asyncio.sleep(0.2)
    moving = False
    await asyncio.gather(*clients)
    await until_up(store)

    assert settled > 7 * 50
    assert await use(store, ask.windows[0]) == (settled, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_another_takes_over(store: Store, cluster: Cluster, number: int) -> None:
    """When the slot's primary dies or hangs, its replica takes over with what was reserved and settled."""
    await asyncio.to_thread(cluster.settle)
    ask = ask_of(f"taken-over-{number}")
    primary = cluster.primary_of(ask.windows[0].key)
    settled, _ = await reserved(store, ask)
    running, _ = await reserved(store, ask)
    store.journal.settle(settled, ask.windows, [(40, 0)])
    assert await use(store, ask.windows[0]) == (40, 100)
    await asyncio.to_thread(catch_up, primary, cluster.replica_of(primary))
    _end(primary, number)
    await until_down(store, ask)
    store.journal.settle(running, ask.windows, [(25, 0)])
    await until_up(store)

    assert await use(store, ask.windows[0]) == (65, 0)
    assert (await reserved(store, ask))[1].candidate == 1
    await asyncio.to_thread(_mend, cluster, primary, number)


async def test_what_the_new_primary_lacks_it_is_told(store: Store, cluster: Cluster) -> None:
    """Settlements that the old primary confirmed but did not replicate are redelivered and counted once."""
    await asyncio.to_thread(cluster.settle)
    ask = ask_of("behind")
    primary = cluster.primary_of(ask.windows[0].key)
    replica = cluster.replica_of(primary)
    ids = [(await reserved(store, ask))[0] for _ in range(3)]
    store.journal.settle(ids[0], ask.windows, [(10, 0)])
    assert await use(store, ask.windows[0]) == (10, 200)
    await asyncio.to_thread(catch_up, primary, replica)
    replica.send(signal.SIGSTOP)
    primary.ask("CLIENT KILL", "TYPE", "replica")
    store.journal.settle(ids[1], ask.windows, [(30, 0)])
    assert await use(store, ask.windows[0]) == (40, 100)
    _end(primary, signal.SIGKILL)
    replica.send(signal.SIGCONT)

    async with asyncio.timeout(30):
        while await _state(store, ask.windows[0]) != (40, 100):
            await asyncio.sleep(0.05)
    assert cluster.primary_of(ask.windows[0].key) is replica
    await asyncio.to_thread(_mend, cluster, primary, signal.SIGKILL)


async def _state(store: Store, of: Window) -> tuple[int, int] | None:
    with contextlib.suppress(StoreUnavailable):
        return await use(store, of)
    return None


def _end(node: RealRedis, number: int) -> None:
    if number == signal.SIGKILL:
        node.stop(number)
    else:
        node.send(number)


def _mend(cluster: Cluster, node: RealRedis, number: int) -> None:
    """Let the node come back as a replica of the one that took over."""
    if number == signal.SIGKILL:
        node.start()
    else:
        node.send(signal.SIGCONT)
    cluster.settle()
