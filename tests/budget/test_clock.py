"""When the clock of the Redis server jumps, nothing ends early, and nothing is held for long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.budget.pacing import Memory, PaceSettings, Reading, update_price
from gateway.store.commands import JournalEntry, ReserveCommand, WindowState, window
from gateway.store.store import Store
from router_model.allocation import PriceTable
from tests.budget.stores import COMMAND, WINDOW
from tests.redis import FAKE_CLOCK, FAKE_TIME, PATIENT, RealRedis, real_redis, reserved, running_store, use

START = 1_000_000_000
LENGTH = 60 * WINDOW.bucket_ms
LEASE = 5_000
DAY = 86_400_000
OTHER = ReserveCommand((window("{thinkmeter}", "other", 60, "*", 1_000),), (0,), ((10,),))


@pytest.fixture(scope="module")
def server() -> Iterator[RealRedis]:
    with real_redis() as running:
        yield running


@pytest.fixture
async def store(server: RealRedis) -> AsyncIterator[Store]:
    server.ask("FLUSHALL")
    server.ask("SET", FAKE_TIME, START)
    async with running_store(server.url, clock=FAKE_CLOCK, lease=LEASE / 1000, timeout=PATIENT) as running:
        yield running


async def at(store: Store, server: RealRedis, time: int) -> WindowState:
    """The window after a request at this time that costs nothing."""
    server.ask("SET", FAKE_TIME, time)
    store.connection.forget_clock()
    id_, _ = await reserved(store, COMMAND)
    store.journal.settle(id_, COMMAND.windows, [(0, 0)])
    await use(store, WINDOW)
    _, (state,) = await store.status([WINDOW])
    return state


async def spend(store: Store, tokens: int) -> None:
    id_, _ = await reserved(store, COMMAND)
    store.journal.settle(id_, COMMAND.windows, [(tokens, 0)])
    await use(store, WINDOW)


@pytest.mark.parametrize("jump", [LENGTH + 2_000, DAY, 30 * DAY])
async def test_tokens_spent_in_the_future_count_for_one_window(
    store: Store, server: RealRedis, jump: int
) -> None:
    """When the clock was ahead by more than a window, the window goes on as if no time had been lost."""
    await at(store, server, START + jump)
    await spend(store, 700)

    for early in (0, 1_000, LENGTH - 1):
        assert (await at(store, server, START + early)).settled == 700
    assert (await at(store, server, START + LENGTH + WINDOW.bucket_ms)).settled == 0


@pytest.mark.parametrize("jump", [1, LENGTH // 2, LENGTH])
async def test_short_jump_holds_tokens_for_at_most_two_windows(
    store: Store, server: RealRedis, jump: int
) -> None:
    """After a jump of up to a window, time stands still until the clock has caught up."""
    await at(store, server, START + jump)
    await spend(store, 700)

    state = await at(store, server, START)
    assert state.settled == 700
    assert state.reset >= LENGTH
    assert (await at(store, server, START + LENGTH)).settled == 700
    assert (await at(store, server, START + jump + LENGTH + 2 * WINDOW.bucket_ms)).settled == 0


async def test_clock_that_was_behind_for_a_moment(store: Store, server: RealRedis) -> None:
    """Tokens count on when a clock that was set back is right again, as if nothing had happened."""
    await at(store, server, START)
    await spend(store, 500)
    for late in (0, 1_000):
        assert (await at(store, server, START - DAY + late)).settled == 500
    await spend(store, 100)

    for late in (1_500, LENGTH - 1):
        assert (await at(store, server, START + late)).settled == 600
    assert (await at(store, server, START + 1_000 + LENGTH + WINDOW.bucket_ms)).settled == 0


async def test_clock_that_is_set_back_again_and_again(store: Store, server: RealRedis) -> None:
    """A window follows a clock that is set back by more than a window again and again."""
    await at(store, server, START)
    await spend(store, 500)
    for days in (1, 5, 10):
        assert (await at(store, server, START - days * DAY)).settled == 500

    assert (await at(store, server, START - 10 * DAY + LENGTH + WINDOW.bucket_ms)).settled == 0


async def test_lease_taken_in_the_future_ends(store: Store, server: RealRedis) -> None:
    """A dead gateway's reservation ends a lease after the clock is right again, and counts for a window."""
    await at(store, server, START + DAY)
    running, _ = await reserved(store, COMMAND)
    await use(store, WINDOW)

    assert (await at(store, server, START)).reserved == 100
    assert (await at(store, server, START + LEASE // 3)).reserved == 100
    await at(store, server, START + LEASE)
    state = await at(store, server, START + 2 * LEASE)
    assert (state.reserved, state.settled) == (0, 100)
    store.journal.settle(running, COMMAND.windows, [(30, 0)])
    assert await use(store, WINDOW) == (30, 0)


async def test_live_lease_survives_the_jump(store: Store, server: RealRedis) -> None:
    """A gateway that renews keeps its reservation when the clock jumps ahead and when it comes back."""
    running, _ = await reserved(store, COMMAND)
    for time in (START + DAY, START, START + LEASE // 4):
        assert (await at(store, server, time)).reserved == 100
        store.journal.renew([JournalEntry("renew", running, COMMAND.windows, [(100, 10)])])
    store.journal.settle(running, COMMAND.windows, [(80, 0)])

    assert await use(store, WINDOW) == (80, 0)


async def test_top_up_in_the_future_ends(store: Store, server: RealRedis) -> None:
    """A top-up lasts for one window after the clock is right again."""
    await at(store, server, START + DAY)
    await store.top_up(WINDOW, 300)

    assert (await at(store, server, START)).cap == 1_300
    assert (await at(store, server, START + LENGTH - 1)).cap == 1_300
    assert (await at(store, server, START + LENGTH)).cap == 1_000


async def test_reset_ends_the_standstill(store: Store, server: RealRedis) -> None:
    """After a reset, tokens count for one window although the clock has not caught up yet."""
    await at(store, server, START + LENGTH)
    await spend(store, 700)
    await at(store, server, START)
    await store.reset(WINDOW)
    await spend(store, 200)

    assert (await at(store, server, START + LENGTH - 1)).settled == 200
    assert (await at(store, server, START + LENGTH + 2 * WINDOW.bucket_ms)).settled == 0


async def test_keys_outlive_the_standstill(store: Store, server: RealRedis) -> None:
    """While time stands still, the keys of a busy window do not expire: their tokens still count."""
    await at(store, server, START + LENGTH)
    await reserved(store, COMMAND)
    await at(store, server, START)
    server.ask("PEXPIRE", WINDOW.key, 5_000)
    await spend(store, 100)

    assert server.ask("PTTL", WINDOW.key) > LENGTH


async def test_jump_ahead_fails_no_request(store: Store, server: RealRedis) -> None:
    """The gateway learns of a clock that was set ahead from the first reply, and tries again at once."""
    await store.reserve(COMMAND)
    server.ask("SET", FAKE_TIME, START + DAY)

    _, reply = await store.reserve(OTHER)
    assert reply.candidate == 1


async def test_jump_back_brings_the_deadline_back(store: Store, server: RealRedis) -> None:
    """After the clock is set back, the deadline of a call is again near the server's time."""
    server.ask("SET", FAKE_TIME, START + DAY)
    await reserved(store, COMMAND)
    assert store.connection.deadline() > START + DAY
    server.ask("SET", FAKE_TIME, START)
    await reserved(store, COMMAND)

    assert store.connection.deadline() < START + 10 * PATIENT * 1000


def test_price_moves_again_after_a_jump() -> None:
    """The price controller does not stand still until the clock has caught up."""
    pacing, table = PaceSettings(60), PriceTable([100.0, 900.0], [0.6, 0.3])
    ahead = Memory(at=START / 1000 + 86_400, arrivals=0, limited=0, spent=0, expected=0, rate=50.0)
    reading = Reading(START / 1000, 0, 0, 1_000, 10)
    first = update_price(pacing, table, ahead, reading).memory
    later = update_price(pacing, table, first, reading._replace(now=reading.now + 60)).memory

    assert first.at == reading.now
    assert later.at == reading.now + 60
    assert later.rate < first.rate / 2
