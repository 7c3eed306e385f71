"""What happens to tokens when Redis stops, hangs, is slow, refuses writes or loses its scripts."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.store import connection
from gateway.store.connection import RedisConnection, StoreUnavailable
from gateway.store.store import Store
from tests.budget.stores import COMMAND, WINDOW
from tests.redis import (
    RealRedis,
    real_redis,
    reserved,
    running_store,
    until_down,
    until_up,
    use,
)


async def stopped(server: RealRedis) -> Callable[[], None]:
    server.stop(signal.SIGKILL)
    return server.start


async def paused(server: RealRedis) -> Callable[[], None]:
    server.send(signal.SIGSTOP)
    return lambda: server.send(signal.SIGCONT)


async def slow(server: RealRedis) -> Callable[[], None]:
    """Every command takes longer than any timeout."""
    with contextlib.closing(server.client()) as client:
        client.execute_command("CLIENT", "PAUSE", 2_500, "ALL")
    return lambda: None


async def full(server: RealRedis) -> Callable[[], None]:
    with contextlib.closing(server.client()) as client:
        client.config_set("maxmemory", 1)

    def empty() -> None:
        with contextlib.closing(server.client()) as client:
            client.config_set("maxmemory", 0)

    return empty


async def demoted(server: RealRedis) -> Callable[[], None]:
    """A primary that has become a replica, as after a fail-over; to mend it is to promote it."""
    with contextlib.closing(server.client()) as client:
        client.replicaof("127.0.0.1", 1)

    def promote() -> None:
        with contextlib.closing(server.client()) as client:
            client.replicaof("NO", "ONE")

    return promote


TROUBLES = pytest.mark.parametrize("trouble", [stopped, paused, slow, full, demoted])


@TROUBLES
async def test_no_token_is_lost(store: Store, server: RealRedis, trouble: Any) -> None:
    """With any trouble, settlements wait and count once. Reservations that failed hold no tokens."""
    id_, _ = await store.reserve(COMMAND)
    running, _ = await store.reserve(COMMAND)
    mend = await trouble(server)
    await until_down(store, COMMAND)
    store.journal.settle(id_, COMMAND.windows, [(70, 0)])
    with pytest.raises(StoreUnavailable):
        await store.reserve(COMMAND)
    await asyncio.sleep(0.3)
    mend()
    await until_up(store)

    store.journal.settle(running, COMMAND.windows, [(30, 0)])
    assert await use(store, WINDOW) == (100, 0)


@TROUBLES
async def test_trouble_costs_no_time(store: Store, server: RealRedis, trouble: Any) -> None:
    """After two failures in a row, each bounded by the timeouts, every request fails at once."""
    mend = await trouble(server)
    await until_down(store, COMMAND)
    begun = time.monotonic()
    results = await asyncio.gather(*(store.reserve(COMMAND) for _ in range(1000)), return_exceptions=True)
    mend()
    took = time.monotonic() - begun

    assert {type(result) for result in results} == {StoreUnavailable}
    assert not store.up or took < 20


async def test_a_hung_server_is_waited_for_no_longer(
    server: RealRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply has the configured time, or twice that if a connection may have to be made first."""
    waited: list[float] = []
    patience = RedisConnection._patience

    def noted(connection: RedisConnection) -> float:
        waited.append(patience(connection))
        return waited[-1]

    monkeypatch.setattr(RedisConnection, "_patience", noted)
    async with running_store(server.url, lease=2) as store:
        await reserved(store, COMMAND)
        waited.clear()
        server.send(signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.reserve(COMMAND)
        assert not store.up
        server.send(signal.SIGCONT)

    assert waited[:2] == [0.25, 0.5]


async def test_what_a_paused_server_finds_later_reserves_nothing(store: Store, server: RealRedis) -> None:
    """Commands in the buffers of a hung Redis reserve nothing when it continues: their callers have left."""
    await store.reserve(COMMAND)
    server.send(signal.SIGSTOP)
    results = await asyncio.gather(*(store.reserve(COMMAND) for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    server.send(signal.SIGCONT)
    await until_up(store)

    assert await use(store, WINDOW) == (0, 100)


async def test_flushed_scripts(store: Store, server: RealRedis) -> None:
    """The gateway sends a script again when Redis no longer has it, and no caller notices."""
    for _ in range(3):
        with contextlib.closing(server.client()) as client:
            client.script_flush()
        id_, grant = await store.reserve(COMMAND)
        assert grant.candidate == 1
        store.journal.settle(id_, COMMAND.windows, [(10, 0)])
    assert await use(store, WINDOW) == (30, 0)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"maxmemory": "100mb", "maxmemory_policy": "volatile-lru"}, True),
        ({"maxmemory": "100mb", "maxmemory_policy": "noeviction"}, False),
        ({"maxmemory_policy": "allkeys-lru"}, False),
    ],
)
async def test_eviction(options: dict[str, str], warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The gateway warns at start of a Redis that evicts keys when it is full."""
    with real_redis(**options) as running:
        async with running_store(running.url, timeout=5):
            pass

    assert ("may evict the budgets" in caplog.text) is warned


async def test_flapping_redis_is_logged_at_a_bounded_rate(
    store: Store, server: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Of many short outages one in ten seconds is logged, with its end."""
    for _ in range(4):
        mend = await full(server)
        await until_down(store, COMMAND)
        mend()
        await until_up(store)

    logged = [text for text in caplog.messages if text.startswith("Redis ")]
    assert [text.split(" (")[0] for text in logged] == ["Redis refuses writes", "Redis is back"]


async def test_outage_that_was_not_logged_at_first_is_logged_later(
    store: Store, server: RealRedis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line about Redis never says that it is back while it is not."""
    for _ in range(2):
        mend = await full(server)
        await until_down(store, COMMAND)
        mend()
        await until_up(store)
    await full(server)
    await until_down(store, COMMAND)
    assert "Redis is back" in caplog.messages[-1]
    monkeypatch.setattr(connection, "_LOG_SECONDS", 0)
    async with asyncio.timeout(20):
        while "refuses writes" not in caplog.messages[-1]:
            await asyncio.sleep(0.02)
