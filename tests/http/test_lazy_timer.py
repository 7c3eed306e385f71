"""The deadline of a connection, on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.http.lazy_timer import LazyTimer


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at, self.callback, self.cancelled = at, callback, False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """An event loop that has only timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        self.timers.append(Timer(self.now + seconds, callback))
        return self.timers[-1]

    def pending(self) -> list[Timer]:
        return sorted((t for t in self.timers if not t.cancelled), key=Timer.when)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.pending()) and due[0].at <= end:
            self.timers.remove(due[0])
            self.now = due[0].at
            due[0].callback()
        self.now = end


steps = st.one_of(
    st.tuples(st.just("set"), st.integers(1, 50)),
    st.tuples(st.just("clear"), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 30)),
)


@given(st.lists(steps, max_size=30))
def test_like_a_timer_for_each_deadline(made: list[tuple[str, int]]) -> None:
    """It fires exactly when a timer would that is cancelled and made anew each time."""
    clock, fired, expected = Clock(), [], []
    deadline = LazyTimer(clock)  # type: ignore[arg-type]
    due: float | None = None
    for step, value in made:
        if step == "set":
            deadline.set(value, lambda: fired.append(clock.now))
            due = clock.now + value
        elif step == "clear":
            deadline.clear()
            due = None
        else:
            clock.advance(value)
            if due is not None and due <= clock.now:
                expected.append(due)
                due = None
        assert fired == expected
        assert deadline.running == (due is not None)
        assert len(clock.pending()) <= 1


def test_requests_make_no_timers() -> None:
    """However many requests begin and end, one timer runs."""
    clock = Clock()
    deadline = LazyTimer(clock)  # type: ignore[arg-type]
    for _ in range(1_000):
        deadline.set(75, lambda: None)
        clock.advance(0.001)
        deadline.clear()
    deadline.set(75, lambda: None)

    assert len(clock.timers) == 1
    deadline.stop()
    assert clock.pending() == []
