"""A copy that is costly to make is made rarely, shared, and handed out at a bounded rate."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from gateway.telemetry.shared_copy import SharedCopy, Turnstile


class Making:
    """Makes numbered copies, each taking `seconds` of a clock that only the test moves."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.now, self.made, self.seconds = 100.0, 0, seconds
        self.gate = asyncio.Event()
        self.gate.set()

    async def make(self) -> int:
        await self.gate.wait()
        self.now += self.seconds
        self.made += 1
        return self.made

    def copy(self, max_age: float) -> SharedCopy[int]:
        return SharedCopy(self.make, lambda: max_age, clock=lambda: self.now)


async def test_one_copy_for_all_in_flight() -> None:
    """Those who ask while a copy is made get that one, also when the first of them leaves."""
    making = Making()
    copy = making.copy(1.0)
    making.gate.clear()
    waiting = [asyncio.create_task(copy.get()) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    making.gate.set()

    assert await asyncio.gather(*waiting[1:]) == [1] * 49
    assert making.made == 1


async def test_copy_of_age_zero_is_begun_later() -> None:
    """With an age of 0 nobody gets a copy begun before the call, and all who wait share the next one."""
    making = Making()
    copy = making.copy(0.0)
    making.gate.clear()
    first = asyncio.create_task(copy.get())
    await asyncio.sleep(0)
    others = [asyncio.create_task(copy.get()) for _ in range(10)]
    await asyncio.sleep(0)
    making.gate.set()

    assert await first == 1
    assert await asyncio.gather(*others) == [2] * 10
    assert making.made == 2


@pytest.mark.parametrize(
    ("seconds", "max_age", "later", "made"),
    [
        (0.0, 1.0, 0.99, 1),
        (0.0, 1.0, 1.0, 2),
        (0.5, 1.0, 2.4, 1),  # a copy that took half a second rests for another two
        (0.5, 1.0, 2.5, 2),
        (60.0, 1.0, 60.0, 2),  # but never so long that a scraper would see the same copy twice
        (0.0, 0.0, 0.0, 2),
        (5.0, 0.0, 5.0, 2),
    ],
)
async def test_age(seconds: float, max_age: float, later: float, made: int) -> None:
    """A copy is used for `max_age`, and longer if it takes long to make. Times count from its beginning."""
    making = Making(seconds)
    copy = making.copy(max_age)
    await copy.get()
    making.now = 100.0 + later
    await copy.get()

    assert making.made == made


async def test_failure_is_told_to_all_and_not_kept() -> None:
    """If a copy cannot be made, all who wait get the error, and the next one tries again."""
    attempts: list[int] = []

    async def fail() -> NoReturn:
        attempts.append(1)
        await asyncio.sleep(0)
        raise KeyError("no")

    copy = SharedCopy(fail, lambda: 60.0)
    results = await asyncio.gather(copy.get(), copy.get(), return_exceptions=True)
    with pytest.raises(KeyError):
        await copy.get()

    assert [type(result) for result in results] == [KeyError, KeyError]
    assert len(attempts) == 2


async def test_turnstile() -> None:
    """So many pass at once; the others pass at the end of the period, one per turn of the event loop."""
    turnstile = Turnstile(5, lambda: 0.05)
    passed: list[int] = []

    async def enter(number: int) -> None:
        await turnstile.enter()
        passed.append(number)

    tasks = [asyncio.create_task(enter(number)) for number in range(20)]
    await asyncio.sleep(0)
    assert passed == list(range(5))

    most, before = 0, 5
    while len(passed) < 20:
        await asyncio.sleep(0)
        most, before = max(most, len(passed) - before), len(passed)
    await asyncio.gather(*tasks)
    assert most == 1


async def test_turnstile_without_a_period() -> None:
    """With a period of 0 everybody passes."""
    turnstile = Turnstile(1, lambda: 0.0)
    async with asyncio.timeout(5):
        await asyncio.gather(*(turnstile.enter() for _ in range(100)))
