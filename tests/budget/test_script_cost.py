"""No script call blocks Redis for longer because a window has many reservations."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.store.commands import ReserveCommand, Window, exchange_call, window
from gateway.store.store import Store
from tests.budget.stores import COMMAND, WINDOW
from tests.redis import PATIENT, RealRedis, real_redis, reserved, running_store, use

MANY = 20_000
SECOND = window("{thinkmeter}", "second", 60, "*", 1_000)


@pytest.fixture(scope="module")
def server() -> Iterator[RealRedis]:
    with real_redis() as running:
        yield running


@pytest.fixture
async def store(server: RealRedis) -> AsyncIterator[Store]:
    server.ask("FLUSHALL")
    async with running_store(server.url, timeout=PATIENT) as running:
        yield running


def fill(server: RealRedis, where: Window, value: str, ends: int) -> None:
    """Put reservations into a window, as gateways that have died would leave them."""
    client, now = server.client(), int(time.time() * 1000)
    names = [f"dead-{number}" for number in range(MANY)]
    client.hset(where.key, mapping={f"r{name}": value for name in names})
    client.zadd(where.leases, dict.fromkeys(names, ends))
    totals = {"S": 0, "V": 0} | ({"S": 5 * MANY} if value.startswith("x") else {"V": 5 * MANY})
    bucket = now // where.bucket_ms
    client.hset(where.key, mapping=totals | {"T": bucket, "L": ends, "H": now, str(bucket): totals["S"]})
    client.close()


def commands(server: RealRedis) -> int:
    """Commands that the server has executed, those of scripts included."""
    with server.client() as client:
        return sum(stats["calls"] for stats in client.info("commandstats").values())


def now_ms() -> int:
    return int(time.time() * 1000)


async def test_reset_does_not_touch_every_reservation(store: Store, server: RealRedis) -> None:
    """A reset takes the same few commands however many reservations have expired."""
    fill(server, WINDOW, f"x5:{now_ms() // WINDOW.bucket_ms}", now_ms() + 60_000)
    before = commands(server)
    await store.reset(WINDOW)
    took = commands(server) - before

    assert took < 20
    assert await use(store, WINDOW) == (0, 0)
    assert server.ask("HLEN", WINDOW.key) >= MANY
    _, reply = await reserved(store, COMMAND)
    assert reply.rooms == [1_000]


async def test_late_settlement_after_a_reset(store: Store, server: RealRedis) -> None:
    """What a reset has cleared is not taken back again when a gateway proves to be alive."""
    fill(server, WINDOW, f"x5:{now_ms() // WINDOW.bucket_ms}", now_ms() + 60_000)
    for again in range(3):
        await store.reset(WINDOW)
        store.journal.settle(f"dead-{again}", (WINDOW,), [(7, 0)])
        assert await use(store, WINDOW) == (7, 0)
        assert sum(int(n) for n in server.ask("HMGET", WINDOW.key, *_buckets()) if n) == 7


async def test_reservation_that_expires_after_a_reset(store: Store, server: RealRedis) -> None:
    """A reservation that expires after a reset is taken back when its gateway settles after all."""
    running, _ = await reserved(store, COMMAND)
    await store.reset(WINDOW)
    assert await use(store, WINDOW) == (0, 100)
    server.ask("ZADD", WINDOW.leases, 1, running)
    server.ask("HSET", WINDOW.key, "L", 1)
    other, _ = await reserved(store, COMMAND)
    store.journal.settle(other, (WINDOW,), [(0, 0)])
    assert await use(store, WINDOW) == (100, 0)
    store.journal.settle(running, (WINDOW,), [(40, 0)])

    assert await use(store, WINDOW) == (40, 0)


async def test_one_call_expires_a_bounded_number(store: Store, server: RealRedis) -> None:
    """Leases that end at once are expired little by little, over all windows of a call together."""
    for where in (WINDOW, SECOND):
        fill(server, where, "5:-1", 1)
    both = ReserveCommand((WINDOW, SECOND), (0, 0), ((1,), (1,)))
    await reserved(store, both)
    _, states = await store.status([WINDOW, SECOND])

    assert sum(5 * MANY - state.reserved for state in states) == 5 * 200
    assert all(0 < state.stale <= 5 * 1_000 for state in states)


async def test_refusals_of_one_batch_read_the_buckets_once(store: Store, server: RealRedis) -> None:
    """A spent window is read once for all requests that share a script call."""
    id_, _ = await reserved(store, COMMAND)
    store.journal.settle(id_, (WINDOW,), [(1_000, 0)])
    assert await use(store, WINDOW) == (1_000, 0)
    commands_by_size = []
    for size in (1, 100):
        keys, arguments = _batch(store, size)
        before = commands(server)
        await store.connection.call("exchange", keys, arguments)
        commands_by_size.append(commands(server) - before)

    assert commands_by_size[1] == commands_by_size[0]


def _buckets() -> list[str]:
    bucket = now_ms() // WINDOW.bucket_ms
    return [str(number) for number in range(bucket - 60, bucket + 1)]


def _batch(store: Store, size: int) -> tuple[list[str], list[object]]:
    ids = [f"{store.gateway_id}-{size}-{number}" for number in range(size)]
    return exchange_call(None, [(id_, COMMAND) for id_ in ids], caps="{thinkmeter}:caps", lease_ms=15_000)
