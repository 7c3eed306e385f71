"""The price controller: its price is monotone and bounded, and its integral does not wind up."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.budget.pacing import Memory, PaceSettings, PriceUpdate, Reading, update_price
from tests.making import TABLE

MINUTE = PaceSettings(60.0)
CAP = 60_000.0
anything = st.floats(allow_nan=True, allow_infinity=True)


def run(
    pacing: PaceSettings, seconds: int, *, rate: float, use: float, memory: Memory | None = None
) -> list[PriceUpdate]:
    """Update once per second while requests arrive at `rate` and the share `use` of the cap is settled."""
    at, count = (memory.at, memory.arrivals) if memory else (0.0, 0.0)
    seen = []
    for _ in range(seconds):
        at, count = at + 1, count + rate
        seen.append(update_price(pacing, TABLE, memory, Reading(at, use * CAP, 0.0, CAP, count)))
        memory = seen[-1].memory
    return seen


# --- observing --------------------------------------------------------------------------------------


@given(st.floats(0.01, 1e4), st.floats(1, 50), st.floats(0, 1))
def test_price_rises_with_load(rate: float, times: float, use: float) -> None:
    """With all else equal, more arrivals never lower the price."""
    calm = run(MINUTE, 1, rate=0, use=use, memory=Memory(100, 0, 0, 0, 0, rate=rate, recent=rate))
    busy = run(
        MINUTE, 1, rate=0, use=use, memory=Memory(100, 0, 0, 0, 0, rate=rate * times, recent=rate * times)
    )

    assert busy[0].price >= calm[0].price


@given(st.floats(0, 1), st.floats(0, 1))
def test_price_rises_with_use(one: float, other: float) -> None:
    """With all else equal, a fuller window never lowers the price."""
    memory = Memory(100, 0, 0, 0, 0, rate=30.0, recent=30.0)
    low, high = (run(MINUTE, 1, rate=30, use=u, memory=memory)[0].price for u in sorted((one, other)))

    assert low <= high


@given(
    st.tuples(*[anything] * 10).map(Memory._make) | st.none(), st.tuples(*[anything] * 8).map(Reading._make)
)
@example(Memory(0, 0, 0, 0, 0, rate=5e-324, recent=5e-324, expecting=4.0), Reading(0, 0, 0, 0, 0))
def test_bears_any_numbers(memory: Memory | None, reading: Reading) -> None:
    """For any numbers from the store, the price stays within the table and the memory finite and bounded."""
    for pacing in (MINUTE, PaceSettings(86_400.0), PaceSettings(60.0, largest=1e9)):
        paced = update_price(pacing, TABLE, memory, reading)
        again = update_price(pacing, TABLE, paced.memory, reading)

        assert TABLE.floor <= paced.price <= TABLE.ceiling
        assert TABLE.floor <= again.price <= TABLE.ceiling
        assert (paced.at_bound == "ceiling") == (paced.price == TABLE.ceiling)
        if memory is None or not all(map(math.isfinite, memory)):
            assert all(map(math.isfinite, paced.memory))
        assert -1 <= paced.memory.trim <= 1


@settings(max_examples=15)
@given(st.floats(0.1, 100), st.floats(0, 0.8), st.integers(2, 60))
def test_never_raises_the_price_far_below_the_cap(rate: float, use: float, seconds: int) -> None:
    """While arrivals are steady and the window has room, the price never rises."""
    settled = run(MINUTE, 120, rate=rate, use=0.96)[-1].memory
    prices = [paced.price for paced in run(MINUTE, seconds, rate=rate, use=use, memory=settled)]

    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(prices))


@settings(max_examples=5)
@given(st.floats(0, 0.8), st.floats(1, 60))
def test_a_long_silence_leaves_no_trace(use: float, rate: float) -> None:
    """After an hour with few requests or none, load is priced as if there had been none before."""
    busy = run(MINUTE, 120, rate=rate, use=use)[-1].memory
    fresh = run(MINUTE, 60, rate=rate, use=0.9)

    silence = update_price(MINUTE, TABLE, busy, Reading(busy.at + 3600, 0.0, 0.0, CAP, busy.arrivals))
    silent = run(MINUTE, 60, rate=rate, use=0.9, memory=silence.memory)
    trickle = run(MINUTE, 1200, rate=0.01, use=0.0, memory=busy)[-1].memory
    after = run(MINUTE, 60, rate=rate, use=0.9, memory=trickle)

    for later in (silent, after):
        assert later[-1].memory.trim == pytest.approx(fresh[-1].memory.trim, abs=0.03)
        assert later[-1].memory.rate == pytest.approx(fresh[-1].memory.rate, rel=0.03)


def test_integral_stops_where_the_price_can_go_no_further() -> None:
    """The integral does not grow during an hour at the ceiling or at the floor."""
    flooded = run(MINUTE, 3600, rate=1e6, use=1.0)[-1]
    idle = run(MINUTE, 3600, rate=0.1, use=0.1)[-1]

    assert (flooded.at_bound, idle.at_bound) == ("ceiling", "floor")
    assert abs(flooded.memory.trim) < 0.01
    assert abs(idle.memory.trim) < 0.01


def test_the_first_surge_is_seen_within_seconds() -> None:
    """Six seconds into a threefold surge the price has made most of its change; ten after its end as well."""
    calm = run(MINUTE, 200, rate=20, use=0.9)[-1]
    surge = run(MINUTE, 200, rate=60, use=0.9, memory=calm.memory)
    after = run(MINUTE, 10, rate=20, use=0.9, memory=surge[-1].memory)

    whole = math.log(surge[-1].price / calm.price)
    assert math.log(surge[5].price / calm.price) > 0.6 * whole
    assert math.log(surge[-1].price / after[-1].price) > 0.6 * whole


def test_longer_answers_than_predicted_raise_the_price() -> None:
    """If completions cost 1.6 times what the head predicts, B is smaller by that factor."""
    memory = None
    for second in range(1, 301):
        counts = {"arrivals": 20.0 * second, "spent": 1600.0 * second, "expected": 1000.0 * second}
        paced = update_price(MINUTE, TABLE, memory, Reading(second, 0.96 * CAP, 0, CAP, **counts))
        memory = paced.memory

    assert paced.price == pytest.approx(TABLE.price(0.96 * CAP / 60 / 20 / 1.6), rel=0.1)


def test_a_restarted_counter_is_no_negative_rate() -> None:
    """If the counters are lower than before, the store has lost them: they count from 0."""
    before = run(MINUTE, 100, rate=20, use=0.5)[-1].memory
    paced = update_price(MINUTE, TABLE, before, Reading(before.at + 1, 0.0, 0.0, CAP, 20.0))

    assert paced.memory.rate == pytest.approx(20, rel=0.01)


def test_sharing_replicas_agree() -> None:
    """The price hardly depends on how often the memory is stored."""
    often = run(MINUTE, 240, rate=25, use=0.99)[-1]
    memory, count = None, 0.0
    for second in range(0, 241, 2):
        count += 50
        rare = update_price(MINUTE, TABLE, memory, Reading(float(second), 0.99 * CAP, 0, CAP, count))
        memory = rare.memory

    assert rare.price == pytest.approx(often.price, rel=0.02)


def test_leaves_room_for_the_largest_request() -> None:
    """If one request may reserve a quarter of the cap, braking begins at three quarters of it."""
    paced = PaceSettings(60.0, largest=CAP / 4)

    assert paced.full(CAP) == 0.75
    assert run(paced, 60, rate=20, use=0.76)[-1].tight
    assert not run(MINUTE, 60, rate=20, use=0.76)[-1].tight


def test_tight_when_the_limiter_acted() -> None:
    """After the limiter has acted, there is no room for experiments."""
    first = update_price(MINUTE, TABLE, None, Reading(0, 0, 0, CAP, 10, 3))
    same = update_price(MINUTE, TABLE, first.memory, Reading(1, 0, 0, CAP, 20, 3))
    acted = update_price(MINUTE, TABLE, first.memory, Reading(1, 0, 0, CAP, 20, 4))

    assert [first.tight, same.tight, acted.tight] == [False, False, True]


# --- slow windows -----------------------------------------------------------------------------------


def spend_a_day(demand: float, hours: int) -> list[float]:
    """Tokens spent in each minute if requests want `demand` per minute of 1,440,000 per day."""
    day, spent, held = PaceSettings(86_400.0), list[float](), 0.0
    for _ in range(hours * 60):
        spent.append(min(demand, 60 * day.spend(1_440_000.0, held)))
        held += spent[-1] - (spent[-1441] if len(spent) > 1440 else 0.0)
    return spent


def test_a_day_is_not_spent_in_an_hour() -> None:
    """An unused budget is spent at no more than three times the even pace; no day exceeds the cap."""
    spent = spend_a_day(demand=1e9, hours=60)

    assert max(spent) <= 3 * 1000 + 1e-6
    assert max(sum(spent[k : k + 1440]) for k in range(len(spent))) <= 1_440_000


def test_a_day_in_demand_is_used_up() -> None:
    """Under constant demand at least 95 % of a day's budget is spent in the long run."""
    spent = spend_a_day(demand=1e9, hours=120)

    assert sum(spent[-2 * 1440 :]) / 2 >= 0.95 * 1_440_000


def test_slow_budget_prices_by_its_plan() -> None:
    """The price of a day's budget rises to the ceiling as the budget runs out."""
    day, memory = PaceSettings(86_400.0), Memory(0, 0, 0, 0, 0, rate=1.0, recent=1.0)
    prices = [
        update_price(day, TABLE, memory, Reading(1, share * 5e6, 0, 5e6, 1)).price
        for share in (0.1, 0.98, 0.99, 1.0)
    ]

    assert prices == sorted(prices)
    assert (prices[0], prices[-1]) == (TABLE.floor, TABLE.ceiling)


# --- memory -----------------------------------------------------------------------------------------


@given(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 10))
def test_memory_survives_the_store(values: tuple[float, ...]) -> None:
    """A memory that is dumped and loaded is the same, from text and from bytes."""
    memory = Memory(*values)

    assert Memory.load(memory.dump()) == memory
    assert Memory.load(memory.dump().encode()) == memory


@pytest.mark.parametrize("text", [None, "", b"", "1 2 3", "a b", "nan " * 10, "1 " * 11, b"\xff\xfe"])
def test_damaged_memory_is_no_memory(text: str | bytes | None) -> None:
    """A text that is no memory is treated as a missing one."""
    assert Memory.load(text) is None
