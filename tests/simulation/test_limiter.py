"""The simulator's limiter against the Lua scripts, on a real Redis whose clock the test sets."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from gateway.simulation.limiter import REFUSED, Limiter
from gateway.store.commands import ReserveCommand, WindowState, window
from gateway.store.store import Store
from tests.redis import FAKE_CLOCK, FAKE_TIME, delivered, real_redis, store_of

SECONDS = 60

TIERS = st.lists(st.integers(1, 200), min_size=1, max_size=4, unique=True).map(sorted)
RESERVE = st.tuples(st.just("reserve"), TIERS, st.integers(0, 3))
"""The tokens of each tier, cheapest first, and the position of the wanted one."""
SETTLE = st.tuples(st.just("settle"), st.integers(0, 5), st.floats(0, 1.3))
"""Which running request, and the share of its reservation that it used: some backends ignore their limit."""
WAIT = st.tuples(
    st.just("wait"),
    st.one_of(
        st.integers(1, 2_000),
        st.integers(58_900, 61_100),  # milliseconds, about the window's length
    ),
    st.none(),
)


class Pair:
    """One window, kept by the scripts and by the simulator's limiter."""

    def __init__(self, redis: Redis, store: Store, name: str, cap: int) -> None:
        self.redis, self.store = redis, store
        self.window = window("{thinkmeter}", name, SECONDS, "*", cap)
        self.limiter = Limiter(SECONDS, cap)
        self.running: list[tuple[str, int]] = []
        """(id, tokens reserved) of each request that is not settled yet."""
        self.milliseconds = 0
        self.wait(1_000_000)

    @property
    def now(self) -> float:
        return self.milliseconds / 1000

    def wait(self, milliseconds: int) -> None:
        self.milliseconds += milliseconds
        self.redis.set(FAKE_TIME, self.milliseconds)
        self.store.connection.forget_clock()  # the clock jumps, so no deadline follows from it

    async def reserve(self, tiers: list[int], wanted: int) -> None:
        """Ask both for the same tiers. With this `minimum` the script never cuts the cheapest one."""
        wanted = min(wanted, len(tiers) - 1)
        command = ReserveCommand(
            windows=(self.window,),
            fixed=(0,),
            amounts=(tuple(reversed(tiers[: wanted + 1])),),
            minimum=tiers[0],
            soft=False,
        )
        id_, reply = await self.store.reserve(command)
        granted = self.limiter.reserve(self.now, wanted, tiers, enforced=True)

        assert granted == (wanted + 1 - reply.candidate if reply.candidate else REFUSED)
        if reply.candidate:
            self.running.append((id_, tiers[granted]))

    async def settle(self, position: int, share: float) -> None:
        if not self.running:
            return
        id_, reserved = self.running.pop(position % len(self.running))
        used = int(reserved * share)
        self.store.journal.settle(id_, (self.window,), [(used, reserved)])
        await delivered(self.store)
        self.limiter.settle(self.now, reserved, used, reserved)

    async def compare(self) -> None:
        """Both have counted the same."""
        _, (state,) = await self.store.status([self.window])
        reading = self.limiter.reading(self.now)
        for field in set(reading._fields) & set(WindowState._fields):
            assert getattr(reading, field) == getattr(state, field), field


async def play(pair: Pair, steps: list[tuple]) -> None:
    for step, first, second in steps:
        if step == "reserve":
            await pair.reserve(first, second)
        elif step == "settle":
            await pair.settle(first, second)
        else:
            pair.wait(first)
        await pair.compare()


def test_admits_what_the_scripts_admit() -> None:
    """In any order of requests, settlements and pauses, both grant the same tiers and count the same."""
    names = itertools.count()
    with real_redis() as server, server.client() as redis, asyncio.Runner() as runner:
        store = store_of(server.url, clock=FAKE_CLOCK, lease=24 * 3600, timeout=10)
        redis.set(FAKE_TIME, 0)
        runner.run(store.start())

        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.integers(1, 600), st.lists(st.one_of(RESERVE, SETTLE, WAIT), max_size=40))
        def holds(cap: int, steps: list[tuple]) -> None:
            runner.run(play(Pair(redis, store, f"b{next(names)}", cap), steps))

        try:
            holds()
        finally:
            runner.run(store.stop())
