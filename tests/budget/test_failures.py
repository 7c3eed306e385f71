"""What happens to requests, and to every token, when Redis stops, hangs, forgets or refuses."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from gateway import redis_link
from gateway.journal import Entry
from gateway.redis_link import StoreUnavailable
from gateway.store import Ask, Store
from gateway.window import window
from tests.fakes.backend import Backend
from tests.fakes.fault import Fault
from tests.redis import (
    FAKE_CLOCK,
    FAKE_TIME,
    PATIENT,
    RealRedis,
    binaries,
    real_redis,
    reserved,
    running_store,
    until_down,
    until_up,
    use,
)
from tests.serving import configuration, serving


@pytest.fixture(params=list(binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[RealRedis]:
    """A server of its own for every test, of every kind at hand; it keeps what it was told."""
    with real_redis(binaries()[request.param], appendonly="yes") as running:
        yield running


@pytest.fixture
async def store(server: RealRedis) -> AsyncIterator[Store]:
    async with running_store(server.url, lease=2) as running:
        yield running


WINDOW = window("{thinkmeter}", "b", 60, "*", 1_000)
ASK = Ask((WINDOW,), (0,), ((100,), (40,)), minimum=40)


async def stopped(server: RealRedis) -> Callable[[], None]:
    server.stop(signal.SIGKILL)
    return server.start


async def paused(server: RealRedis) -> Callable[[], None]:
    server.send(signal.SIGSTOP)
    return lambda: server.send(signal.SIGCONT)


async def slow(server: RealRedis) -> Callable[[], None]:
    """Every command waits for longer than anybody waits for it."""
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
    """A primary that became a replica, as after a fail-over; then it is promoted."""
    with contextlib.closing(server.client()) as client:
        client.replicaof("127.0.0.1", 1)

    def promote() -> None:
        with contextlib.closing(server.client()) as client:
            client.replicaof("NO", "ONE")

    return promote


TROUBLES = pytest.mark.parametrize("trouble", [stopped, paused, slow, full, demoted])


@TROUBLES
async def test_no_token_is_lost(store: Store, server: RealRedis, trouble: Any) -> None:
    """Whatever befalls Redis, settlements wait and are counted once; what nobody got is not held."""
    id_, _ = await store.reserve(ASK)
    running, _ = await store.reserve(ASK)
    mend = await trouble(server)
    await until_down(store, ASK)
    store.journal.settle(id_, ASK.windows, [(70, 0)])
    with pytest.raises(StoreUnavailable):
        await store.reserve(ASK)
    await asyncio.sleep(0.3)
    mend()
    await until_up(store)

    store.journal.settle(running, ASK.windows, [(30, 0)])
    assert await use(store, WINDOW) == (100, 0)


@TROUBLES
async def test_trouble_costs_no_time(store: Store, server: RealRedis, trouble: Any) -> None:
    """Two failures in a row, each bounded by the timeouts, and then every request is told at once."""
    mend = await trouble(server)
    await until_down(store, ASK)
    begun = time.monotonic()
    results = await asyncio.gather(*(store.reserve(ASK) for _ in range(1000)), return_exceptions=True)
    mend()
    took = time.monotonic() - begun

    assert {type(result) for result in results} == {StoreUnavailable}
    assert not store.link.up or took < 20


async def test_a_hung_server_is_waited_for_no_longer(
    store: Store, server: RealRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply gets the time of the settings, and as much again where a connection has to be made first."""
    waited: list[float] = []

    async def within(seconds: float, wanted: Awaitable[Any]) -> Any:
        waited.append(seconds)
        return await as_shipped(seconds, wanted)

    as_shipped = redis_link._within
    await reserved(store, ASK)
    monkeypatch.setattr(redis_link, "_within", within)
    server.send(signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.reserve(ASK)
    assert not store.link.up
    server.send(signal.SIGCONT)

    assert waited[:2] == [0.25, 0.5]


async def test_what_a_paused_server_finds_later_reserves_nothing(store: Store, server: RealRedis) -> None:
    """Reservations still in the buffers of a hung Redis are void when it wakes: their callers have left."""
    await store.reserve(ASK)
    server.send(signal.SIGSTOP)
    results = await asyncio.gather(*(store.reserve(ASK) for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    server.send(signal.SIGCONT)
    await until_up(store)

    assert await use(store, WINDOW) == (0, 100)


async def test_flushed_scripts(store: Store, server: RealRedis) -> None:
    """A Redis that has forgotten the scripts is told them again, unnoticed."""
    for _ in range(3):
        with contextlib.closing(server.client()) as client:
            client.script_flush()
        id_, grant = await store.reserve(ASK)
        assert grant.candidate == 1
        store.journal.settle(id_, ASK.windows, [(10, 0)])
    assert await use(store, WINDOW) == (30, 0)


async def test_restarted_empty(store: Store, server: RealRedis) -> None:
    """A Redis that lost everything learns of running requests by their renewals."""
    id_, _ = await store.reserve(ASK)
    with contextlib.closing(server.client()) as client:
        client.flushall()
    store.journal.renew([Entry("renew", id_, ASK.windows, [(100, 20)])])
    assert await use(store, WINDOW) == (0, 100)
    store.journal.settle(id_, ASK.windows, [(60, 0)])
    assert await use(store, WINDOW) == (60, 0)


async def test_renewed_twice_in_one_batch(store: Store) -> None:
    """Renewals told again come in one batch with later ones of the same requests: each is held once."""
    id_, _ = await reserved(store, ASK)
    store.journal.renew([Entry("renew", id_, ASK.windows, [(100, tokens)]) for tokens in (20, 30)])
    assert await use(store, WINDOW) == (0, 100)
    store.journal.settle(id_, ASK.windows, [(60, 0)])

    assert await use(store, WINDOW) == (60, 0)


async def test_dead_gateway(server: RealRedis) -> None:
    """A gateway that dies: its tokens are held until the lease ends, then count as last reported."""
    async with running_store(server.url, replica="dead", lease=1) as dead:
        reported, _ = await dead.reserve(ASK)
        await dead.reserve(ASK)
        dead.journal.renew([Entry("renew", reported, ASK.windows, [(100, 25)])])
        assert await use(dead, WINDOW) == (0, 200)
    async with running_store(server.url, replica="alive", lease=1) as alive:
        assert await use(alive, WINDOW) == (0, 200)
        await asyncio.sleep(1.1)
        _, (found,) = await alive.status([WINDOW])
        assert found.stale == 200
        for _ in range(2):  # the first to be heard after a silence gives those who live the time to renew
            id_, _ = await reserved(alive, ASK)
            alive.journal.settle(id_, ASK.windows, [(0, 0)])
            await asyncio.sleep(0.6)

        assert await use(alive, WINDOW) == (25 + 100, 0)


async def test_away_for_longer_than_the_lease(server: RealRedis) -> None:
    """What living gateways hold while Redis is away, however long, is given to nobody when it comes back."""
    options = {"clock": FAKE_CLOCK, "lease": 2, "timeout": PATIENT}
    server.ask("SET", FAKE_TIME, 1_000_000)
    async with (
        running_store(server.url, replica="one", **options) as one,
        running_store(server.url, replica="two", **options) as two,
    ):
        ids = [(await reserved(one, ASK))[0] for _ in range(10)]
        renewals = [Entry("renew", id_, ASK.windows, [(100, 20)]) for id_ in ids]
        one.journal.renew(renewals)
        assert await use(one, WINDOW) == (0, 1_000)
        server.stop(signal.SIGKILL)
        await until_down(one, ASK)
        server.start()
        server.ask("SET", FAKE_TIME, 1_030_000)
        _, grant = await reserved(two, ASK)
        await until_up(one)
        one.journal.renew(renewals)

        assert grant.candidate == 0
        assert await use(one, WINDOW) == (0, 1_000)
        for id_ in ids:
            one.journal.settle(id_, ASK.windows, [(100, 0)])
        assert await use(one, WINDOW) == (1_000, 0)


async def test_cancelled_callers_hold_nothing(store: Store) -> None:
    """A caller that leaves at any moment of its reservation leaves nothing behind."""
    for delay in [0, 0.0001, 0.0003, 0.001, 0.002, 0.005] * 5:
        task = asyncio.create_task(store.reserve(ASK))
        await asyncio.sleep(delay)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            store.journal.settle((await task)[0], ASK.windows, [(0, 0)])
    assert await use(store, WINDOW) == (0, 0)


async def test_keys_expire(store: Store, server: RealRedis) -> None:
    """Whatever is written goes away by itself."""
    short = window("{thinkmeter}", "short", 1, "*", 1_000)
    ask = Ask((short, WINDOW), (0, 0), ((100, 100),))
    id_, _ = await store.reserve(ask)
    await store.reserve(ask)
    store.journal.settle(id_, ask.windows, [(10, 0)] * 2)
    await store.top_up(WINDOW, 5)
    await use(store, WINDOW)
    with contextlib.closing(server.client()) as client:
        left = {key: client.pttl(key) for key in client.scan_iter("*") if b"caps" not in key}

    assert len(left) == 6  # hash and leases of both windows, the journal, the probe
    assert all(milliseconds > 0 for milliseconds in left.values())


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"maxmemory": "100mb", "maxmemory_policy": "volatile-lru"}, True),
        ({"maxmemory": "100mb", "maxmemory_policy": "noeviction"}, False),
        ({"maxmemory_policy": "allkeys-lru"}, False),
    ],
)
async def test_eviction(options: dict[str, str], warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A Redis that would rather forget tokens than be full is warned of at the start."""
    with real_redis(**options) as running:
        async with running_store(running.url, timeout=5):
            pass

    assert ("may evict the budgets" in caplog.text) is warned


# --- as requests meet it ----------------------------------------------------------------------------


def governed(url: str, server: RealRedis, policy: str, **budget: Any) -> dict[str, Any]:
    budgets = [{"name": "b0", "window": "1m", "tokens": 3000, "when_redis_fails": policy} | budget]
    return configuration(url, redis={"url": server.url}, head="baseline", price=0, budgets=budgets)


@pytest.mark.usefixtures("patient_redis")
@pytest.mark.parametrize(
    ("policy", "status", "tier"), [("closed", 503, None), ("degrade", 200, "direct"), ("open", 200, "long")]
)
async def test_policies(
    backend: Backend, server: RealRedis, policy: str, status: int, tier: str | None
) -> None:
    """Without Redis a budget does what it says, says so, and afterwards every token is accounted for."""
    async with serving(governed(backend.url, server, policy)) as gateway:
        server.stop(signal.SIGKILL)
        answers = [await gateway.chat("hello") for _ in range(4)]
        assert [answer.status for answer in answers] == [status] * 4
        assert answers[-1].headers.get("x-thinkmeter-tier") == tier
        assert answers[-1].headers.get("x-thinkmeter-budget-fallback") == (policy if tier else None)
        if not tier:
            assert (await answers[-1].json())["error"]["code"] == "budget_unavailable"
        metrics = await gateway.metrics()
        assert metrics[f'thinkmeter_budget_fallbacks_total{{policy="{policy}"}}'] == 4
        assert metrics["thinkmeter_redis_up"] == 0

        server.start()
        store = gateway.gateway.ledger.store
        await until_up(store)
        limit = gateway.gateway.snapshot.budgets.limits["b0", "*"]
        spent = [(await answer.json())["usage"]["completion_tokens"] for answer in answers if tier]
        assert await use(store, limit.window) == (sum(spent), 0)


@pytest.mark.usefixtures("patient_redis")
async def test_degraded_budget_is_capped_here(backend: Backend, server: RealRedis) -> None:
    """Under `degrade` each gateway spends at most its share, and then says why it refuses."""
    settings = governed(backend.url, server, "degrade", tokens=600)
    async with serving(settings) as gateway:
        server.stop(signal.SIGKILL)
        answers = [await gateway.chat("hello") for _ in range(4)]
        spent = [(await a.json())["usage"]["completion_tokens"] for a in answers if a.status == 200]

        assert answers[-1].status == 429
        assert "degraded" in (await answers[-1].json())["error"]["message"]
        assert 0 < sum(spent) <= 60


@pytest.mark.usefixtures("patient_redis")
async def test_started_without_redis(backend: Backend, server: RealRedis) -> None:
    """A gateway starts while Redis is away, and uses it once it comes."""
    server.stop()
    async with serving(governed(backend.url, server, "open")) as gateway:
        assert (await gateway.chat("hello")).headers["x-thinkmeter-budget-fallback"] == "open"
        server.start()
        await until_up(gateway.gateway.ledger.store)
        assert (await gateway.chat("hello")).headers["x-ratelimit-limit-tokens"] == "3000"


@pytest.mark.usefixtures("patient_redis")
async def test_long_stream_keeps_its_reservation(backend: Backend, server: RealRedis) -> None:
    """A stream longer than its lease is renewed, and its progress reported."""
    backend.script(Fault(after=7, end="stall"))
    settings = governed(backend.url, server, "closed") | {"reservations": {"lease": 1}}
    async with serving(settings) as gateway:
        task = asyncio.create_task(gateway.chat("hello", stream=True))
        await asyncio.sleep(2.5)
        limit = gateway.gateway.snapshot.budgets.limits["b0", "*"]
        _, (found,) = await gateway.gateway.ledger.store.status([limit.window])
        with contextlib.closing(server.client()) as client:
            held = [v for k, v in client.hgetall(limit.window.key).items() if k.startswith(b"r")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await gateway.recorded(1)

        assert (found.settled, found.reserved, found.stale) == (0, 288, 0)
        assert held == [b"288:7"]
        assert await use(gateway.gateway.ledger.store, limit.window) == (7, 0)


async def test_a_local_share_that_changes(backend: Backend, server: RealRedis) -> None:
    """A reload that changes a cap while Redis is away keeps what this gateway has spent by itself."""
    server.stop(signal.SIGKILL)
    async with serving(governed(backend.url, server, "degrade", tokens=3_000)) as gateway:
        ledger = gateway.gateway.ledger
        before = gateway.gateway.snapshot.budgets.limits["b0", "*"]
        window = ledger._local_window(before)
        assert window.reserve(250, 0.0)
        after = before._replace(budget=before.budget.model_copy(update={"tokens": 1_000}))
        ledger._local_window(after).settle(250, 80, 1.0)

        assert not ledger._local_window(after).reserve(21, 2.0)
        assert ledger._local_window(after).reserve(20, 2.0)
        assert not ledger._local_window(after).reserve(81, 62.0)
        assert ledger._local_window(after).reserve(80, 62.0)
