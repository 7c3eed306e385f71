"""Compares the scripts with a plain sliding window: random histories on a real Redis, whose clock we set."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gateway.store.commands import (
    BUCKETS,
    JournalEntry,
    ReserveCommand,
    ReserveReply,
    Window,
    exchange_call,
    window,
)
from tests.redis import FAKE_CLOCK, FAKE_TIME, RealRedis, binaries, delivered, real_redis, store_of

LEASE_MS = 5_000


@dataclass
class Held:
    """A reservation as the model knows it."""

    amount: int
    reported: int
    ends: int
    lapsed: tuple[int, int] | None = None
    """When the reservation was expired, and the tokens that were counted for it; None until then."""


@dataclass
class Model:
    """A sliding window that keeps every settlement."""

    cap: int
    length: int
    held: dict[str, Held] = field(default_factory=dict)
    spent: list[tuple[int, int]] = field(default_factory=list)
    heard: int = 0
    spared: int = 0
    ahead: int = 0
    """How much the window's time is ahead of the clock, because that was set back by more than a window."""

    def time(self, clock: int) -> int:
        """The window's time, which never goes back."""
        return max(clock + self._ahead(clock), self.heard)

    def _ahead(self, clock: int) -> int:
        if clock >= self.heard:
            return 0
        return self.heard - clock if self.heard - clock - self.ahead > self.length else self.ahead

    def lapse(self, clock: int) -> None:
        """Expire the reservations whose leases have run out, but not in the grace period after a silence."""
        self.ahead, now = self._ahead(clock), self.time(clock)
        if self.heard and now - self.heard > LEASE_MS // 2 and not self.spared:
            self.spared = now + LEASE_MS // 2
        self.heard = now
        if now < self.spared:
            return
        self.spared = 0
        for held in self.held.values():
            if held.lapsed is None and held.ends <= now:
                counted = held.amount if held.reported < 0 else held.reported
                held.lapsed = now, counted
                self.spent.append(held.lapsed)

    def settle(self, id_: str, tokens: int, clock: int) -> None:
        held = self.held.pop(id_, None)
        if held and held.lapsed:
            self.spent.remove(held.lapsed)
        self.spent.append((self.time(clock), tokens))

    def reserved(self) -> int:
        return sum(held.amount for held in self.held.values() if held.lapsed is None)

    def within(self, clock: int, length: int) -> int:
        return sum(tokens for at, tokens in self.spent if at > self.time(clock) - length)


class Budgets(RuleBasedStateMachine):
    """Two windows of different length, and requests under one or both of them."""

    server: RealRedis
    ids = Bundle("ids")

    @initialize(cap=st.integers(1, 400), other=st.integers(1, 4_000))
    def begin(self, cap: int, other: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.redis = self.server.client()
        self.redis.flushall()
        self.now = 1_000_000_000
        self.set_clock()
        self.windows = (
            window("{thinkmeter}", "short", 1.2, "*", cap),
            window("{thinkmeter}", "long", 60, "*", other),
        )
        self.models = {w.key: Model(w.tokens, BUCKETS * w.bucket_ms) for w in self.windows}
        self.of: dict[str, tuple[Window, ...]] = {}
        self.honest = True
        self.passed = 0
        self.settled: list[tuple[int, tuple[Window, ...], int]] = []
        self.store = store_of(self.server.url, clock=FAKE_CLOCK, lease=LEASE_MS / 1000, timeout=10)
        self.loop.run_until_complete(self.store.start())

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.loop.run_until_complete(self.store.stop())
            self.loop.close()
            self.redis.close()

    def set_clock(self) -> None:
        self.redis.set(FAKE_TIME, self.now)

    def run(self, wanted: Any) -> Any:
        self.store.connection.forget_clock()  # the clock jumps, so no deadline follows from it
        return self.loop.run_until_complete(wanted)

    def models_of(self, windows: tuple[Window, ...]) -> list[Model]:
        models = [self.models[w.key] for w in windows]
        for model in models:
            model.lapse(self.now)
        return models

    @rule(
        milliseconds=st.one_of(
            st.integers(0, 50),
            st.integers(1_170, 1_225),  # about the short window's length
            st.integers(58_900, 61_100),  # about the long one's
            st.integers(0, 70_000),
        )
    )
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.passed += milliseconds
        self.set_clock()

    @rule(milliseconds=st.one_of(st.integers(1, 1_300), st.integers(1_000, 63_000), st.integers(1, 900_000)))
    def clock_jumps_back(self, milliseconds: int) -> None:
        self.now -= milliseconds
        self.set_clock()

    @rule(
        target=ids,
        which=st.sampled_from([(0,), (1,), (0, 1)]),
        caps=st.lists(st.integers(0, 200), min_size=1, max_size=4, unique=True),
        choices=st.integers(1, 3),
        fixed=st.integers(0, 30),
        minimum=st.integers(1, 60),
        soft=st.booleans(),
    )
    def reserve(
        self, which: tuple[int, ...], caps: list[int], choices: int, fixed: int, minimum: int, soft: bool
    ) -> str:
        windows = tuple(self.windows[i] for i in which)
        steps = sorted(caps, reverse=True)
        amounts = tuple(fixed + choices * cap for cap in steps)
        ask = ReserveCommand(
            windows, (fixed,) * len(windows), (amounts,) * len(windows), choices, minimum, soft
        )
        id_, grant = self.run(self.store.reserve(ask))
        self.check_grant(ask, grant, self.models_of(windows))
        if not grant.candidate:
            return ""
        tokens = amounts[grant.candidate - 1]
        if grant.clamp:
            tokens = min(tokens, fixed + choices * grant.clamp)
        for model in self.models_of(windows):
            model.held[id_] = Held(tokens, -1, model.time(self.now) + LEASE_MS)
        self.of[id_] = windows
        return id_

    def check_grant(self, ask: ReserveCommand, grant: ReserveReply, models: list[Model]) -> None:
        """What was granted had room; what was passed over had none, give or take one bucket."""
        sure = [m.cap - m.reserved() - m.within(self.now, m.length) for m in models]
        doubtful = [m.cap - m.reserved() - m.within(self.now, m.length + m.length // BUCKETS) for m in models]
        assert all(low <= room <= high for low, room, high in zip(doubtful, grant.rooms, sure, strict=True))

        def fits(amounts: tuple[int, ...]) -> bool:
            return all(not n or n <= room for n, room in zip(amounts, grant.rooms, strict=True))

        whole_one = grant.candidate and not grant.clamp
        candidates = list(zip(*ask.amounts, strict=True))
        passed_over = candidates[: grant.candidate - 1] if whole_one else candidates
        assert not any(map(fits, passed_over))
        assert not whole_one or fits(candidates[grant.candidate - 1])
        if grant.clamp:
            cut = [f + ask.choices * grant.clamp for f in ask.fixed]
            assert grant.candidate == len(candidates)
            assert all(tokens <= room for tokens, room in zip(cut, sure, strict=True))
            whole = min((m.cap - f) // ask.choices for m, f in zip(models, ask.fixed, strict=True))
            assert grant.clamp >= (min(ask.minimum, whole) if ask.soft else ask.minimum)

    @rule(id_=consumes(ids), share=st.floats(0, 1), twice=st.booleans())
    def settle(self, id_: str, share: float, twice: bool) -> None:
        if not id_:
            return
        windows = self.of[id_]
        models = self.models_of(windows)
        held = models[0].held[id_]
        tokens = int(held.amount * share)
        self.honest &= held.lapsed is None or tokens <= held.lapsed[1]
        for model in models:
            self.honest &= model.held[id_].lapsed is None
            model.settle(id_, tokens, self.now)
        self.settled.append((self.passed, windows, tokens))
        self.store.journal.settle(id_, windows, [(tokens, 0)] * len(windows))
        entries = self.store.journal.waiting
        self.run(delivered(self.store))
        if twice:  # the reply was lost, so the batch is sent again
            part = self.store.journal.part()._replace(entries=entries)
            call = exchange_call(part, caps="{thinkmeter}:caps", lease_ms=LEASE_MS)
            assert self.run(self.store.connection.call("exchange", *call))[1] == 0

    @rule(id_=ids, share=st.floats(0, 1))
    def renew(self, id_: str, share: float) -> None:
        if (
            id_ not in self.models[self.windows[0].key].held
            and id_ not in self.models[self.windows[1].key].held
        ):
            return
        windows = self.of[id_]
        models = self.models_of(windows)
        amount = models[0].held[id_].amount
        reported = int(amount * share)
        for model in models:
            held = model.held[id_]
            if held.lapsed:
                model.spent.remove(held.lapsed)
                self.honest = False  # other requests may have got its tokens in the meantime
            model.held[id_] = Held(amount, reported, model.time(self.now) + LEASE_MS)
        self.store.journal.renew([JournalEntry("renew", id_, windows, [(amount, reported)] * len(windows))])
        self.run(delivered(self.store))

    @rule()
    def scripts_are_flushed(self) -> None:
        self.redis.script_flush()

    @rule(back=st.integers(1, 3_000))
    def clock_is_set_back(self, back: int) -> None:
        """One call sees an earlier time: no token may stop counting because of that."""
        self.redis.set(FAKE_TIME, self.now - back)
        _, uses = self.run(self.store.status(self.windows))
        self.set_clock()
        for w, use in zip(self.windows, uses, strict=True):
            assert use.settled >= self.models[w.key].within(self.now, self.models[w.key].length)

    @invariant()
    def windows_hold(self) -> None:
        if not hasattr(self, "store"):
            return
        _, uses = self.run(self.store.status(self.windows))
        for w, use in zip(self.windows, uses, strict=True):
            model = self.models[w.key]
            assert model.within(self.now, model.length) <= use.settled
            assert use.settled <= model.within(self.now, model.length + w.bucket_ms)
            assert use.reserved == model.reserved()
            recent = [n for at, ws, n in self.settled if w in ws and at > self.passed - model.length]
            assert use.settled >= sum(recent)  # by the time that has really passed
            if self.honest:
                assert use.settled + use.reserved <= w.tokens


@pytest.mark.parametrize("name", list(binaries()))
@pytest.mark.timeout(300)
def test_any_history(name: str) -> None:
    """In any history, a window counts every token for its length and at most a bucket longer, counts reserved
    tokens exactly, grants only what fits, and never exceeds its cap.

    When the clock is set back, a window's time stands still for at most its length. No token leaves early.
    """
    with real_redis(binaries()[name]) as server:
        machine = type("Budgets", (Budgets,), {"server": server})
        checks = settings(
            max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        )
        run_state_machine_as_test(machine, settings=checks)
