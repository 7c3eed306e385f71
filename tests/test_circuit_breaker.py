"""The circuit breaker keeps its promises under any order of requests, outcomes and waits."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.circuit_breaker import CircuitBreaker


class Traffic(RuleBasedStateMachine):
    """Requests start and end while time passes. The invariants are what the breaker promises."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CircuitBreaker(limit=3, open_seconds=10)
        self.now = 0
        self.in_flight = 0
        self.row = 0
        """Failures since the last success."""
        self.shut_until = 0
        """The time until which the breaker must be open."""
        self.trials = 0
        """Requests let through in the half-open state since the last outcome."""

    @rule(seconds=st.integers(0, 12))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.allows(self.now))
    @rule()
    def send(self) -> None:
        self.trials += self.breaker.state(self.now) == "half_open"
        self.breaker.begin_attempt(self.now)
        self.in_flight += 1

    @precondition(lambda self: self.in_flight)
    @rule()
    def answered(self) -> None:
        self.breaker.record_success()
        self.row = 0
        self._ended(0)

    @precondition(lambda self: self.in_flight)
    @rule()
    def failed(self) -> None:
        was_shut = self.breaker.state(self.now) != "closed"
        self.breaker.record_failure(self.now)
        self.row += 1
        self._ended(self.now + 10 if was_shut or self.row >= 3 else 0)

    @precondition(lambda self: self.in_flight)
    @rule()
    def abandoned(self) -> None:
        self.breaker.abandon()
        self._ended(self.shut_until)

    def _ended(self, shut_until: int) -> None:
        self.in_flight -= 1
        self.trials, self.shut_until = 0, shut_until

    @invariant()
    def opens_and_reopens(self) -> None:
        """It is open for exactly ten seconds after the failure that opened it."""
        assert (self.breaker.state(self.now) == "open") is (self.now < self.shut_until)

    @invariant()
    def open_lets_nothing_through(self) -> None:
        assert self.breaker.state(self.now) != "open" or not self.breaker.allows(self.now)

    @invariant()
    def half_open_lets_one_try(self) -> None:
        assert self.trials <= 1
        if self.breaker.state(self.now) == "half_open":
            assert self.breaker.allows(self.now) is (self.trials == 0)

    @invariant()
    def closed_lets_everything_through(self) -> None:
        assert self.breaker.state(self.now) != "closed" or self.breaker.allows(self.now)


Traffic.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestTraffic = Traffic.TestCase


def opened() -> CircuitBreaker:
    """A breaker that opened at 0 s and is half open from 10 s."""
    breaker = CircuitBreaker(limit=2, open_seconds=10)
    for _ in range(2):
        breaker.begin_attempt(0)
        breaker.record_failure(0)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    """A success between failures restarts the count."""
    breaker = CircuitBreaker(limit=2)
    for report in (
        lambda: breaker.record_failure(0),
        breaker.record_success,
        lambda: breaker.record_failure(0),
    ):
        report()

    assert breaker.state(0) == "closed"
    breaker.record_failure(0)
    assert breaker.state(0) == "open"


def test_half_open_after_the_time() -> None:
    """It stays open for exactly `open_seconds`, and is half open from then on."""
    assert [opened().state(now) for now in (0, 9.99, 10)] == ["open", "open", "half_open"]


def test_try_that_succeeds_closes_it() -> None:
    """One successful response closes it and clears the count of failures."""
    breaker = opened()
    breaker.begin_attempt(10)
    breaker.record_success()
    breaker.record_failure(11)

    assert breaker.state(11) == "closed"


def test_try_that_fails_reopens_it_at_once() -> None:
    """In the half-open state one failure is enough, and `open_seconds` starts again."""
    breaker = opened()
    breaker.limit = 99  # raised by a reload meanwhile
    breaker.begin_attempt(10)
    breaker.record_failure(12)

    assert [breaker.state(now) for now in (12, 21.9, 22)] == ["open", "open", "half_open"]


def test_abandoned_try_leaves_the_place_to_another() -> None:
    """A client that leaves says nothing about the replica, so the next request may try."""
    breaker = opened()
    breaker.begin_attempt(10)
    assert not breaker.allows(10)
    breaker.abandon()

    assert breaker.state(10) == "half_open"
    assert breaker.allows(10)
