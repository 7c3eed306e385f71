"""Price controller: computes the price λ from the state of a budget and its requests. No I/O.

Feed-forward: λ*(B) is the price at which requests cost B tokens each, by the head's estimates. B is what the
cap leaves for each request at the present arrival rate, corrected by how much longer completions are than
estimated. Feedback adjusts B by how full the window is: a proportional brake on the last stretch before the
cap, and an integral that removes a lasting error. The limiter in the store enforces the cap in any case; the
price decides which requests get the tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from router_model.allocation import PriceTable

SLOW = 900.0
"""Seconds. A longer window follows a plan instead of feedback, which would act too late."""

_TINY = 1e-9


class Reading(NamedTuple):
    """The state of one budget at one moment.

    The counters from `arrivals` on only grow. One that is lower than before was restarted.
    """

    now: float
    """Seconds of the store's clock."""
    settled: float
    """Tokens in the window that were spent by finished requests."""
    reserved: float
    """Tokens reserved for running requests."""
    cap: float
    """Tokens that the window may hold."""
    arrivals: float
    """Requests so far."""
    limited: float = 0.0
    """Requests so far that the limiter shortened or refused."""
    spent: float = 0.0
    """Tokens settled so far."""
    expected: float = 0.0
    """Tokens that the head predicted for the same completions."""


class Memory(NamedTuple):
    """What one update leaves for the next; the store keeps it as text."""

    at: float
    """Time of the last reading."""
    arrivals: float
    """`arrivals` of the last reading. The next three fields are also copied from it."""
    limited: float
    spent: float
    expected: float
    rate: float = 0.0
    """Arrivals per second, smoothed over a third of the window."""
    recent: float = 0.0
    """Arrivals per second, smoothed over a twentieth of the window."""
    spending: float = 0.0
    """Tokens spent per second, smoothed over the window."""
    expecting: float = 0.0
    """Tokens expected per second, smoothed over the window."""
    trim: float = 0.0
    """The integral of the feedback, in units of ln B."""

    def dump(self) -> str:
        """As text, without rounding, so that it can be compared and replaced atomically."""
        return " ".join(repr(float(value)) for value in self)

    @classmethod
    def load(cls, text: str | bytes | None) -> Memory | None:
        """From text; None if it is missing, damaged or from another release."""
        try:
            values = [float(word) for word in (text or "").split()]
        except ValueError:
            return None
        return cls(*values) if len(values) == len(cls._fields) and all(map(math.isfinite, values)) else None


class PriceUpdate(NamedTuple):
    """The price for the next requests, and what to remember."""

    price: float
    """Per 1,000 tokens."""
    at_bound: Literal["floor", "ceiling"] | None
    """"ceiling": every request gets its cheapest tier, so a higher price would change nothing.
    "floor": every request gets its best tier, so a lower price would change nothing."""
    tight: bool
    """The limiter has acted since the last reading or is about to, so this is no time for experiments."""
    memory: Memory


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """How one budget is paced; docs/pacing.md explains how the numbers were found."""

    window: float
    """Seconds."""
    largest: float = 0.0
    """The most tokens that one request may reserve; the controller leaves room for it."""
    aim: float = 0.96
    """Share of the cap that settled and reserved tokens should fill."""
    brake: float = 0.98
    """Share of the cap above which spending falls, to nothing at the cap."""
    integral: float = 0.1
    """Change of ln B during one window in which the error is one whole cap."""
    burst: float = 3.0
    """In a window longer than SLOW: spend at most so many times the even pace."""
    taper: float = 1 / 24
    """In a window longer than SLOW: spread what remains over at least this share of the window."""

    def full(self, cap: float) -> float:
        """The share of the cap at which braking begins; lower if one request can take much of the cap."""
        return max(min(self.brake, 1 - self.largest / cap), 0.5) if cap > 0 else 0.5

    def target(self, cap: float) -> float:
        """The share of the cap to fill."""
        return min(self.aim, self.full(cap))

    def spend(self, cap: float, held: float) -> float:
        """Tokens per second that the requests arriving now may cost. held: tokens settled or reserved.

        A window up to SLOW is spent at an even pace, which falls on the last stretch before the cap. A longer
        one follows the plan of `burst` and `taper`.
        """
        left = max(cap - held, 0.0)
        if self.window > SLOW:
            return min(self.burst * cap, left / self.taper) / self.window
        if cap <= 0:
            return 0.0
        stretch = max(cap - self.full(cap) * cap, _TINY)  # the smallest caps leave no stretch
        return min(left / stretch, 1.0) * self.target(cap) * cap / self.window


_BAND = 0.1  # share of the cap that larger errors count as: use can fall far below the aim, not rise above it
_TRIMS = -1.0, 1.0  # bounds of the trim
_FAITH = 0.1  # trust in the head's lengths: as if this share of the cap had been spent as predicted
_BIASES = 0.25, 4.0  # bounds of that correction
_HOUR = 3600.0


def update_price(
    pacing: PaceSettings, table: PriceTable, memory: Memory | None, reading: Reading
) -> PriceUpdate:
    """The price after a reading. Accepts any numbers, NaN included.

    The result depends on the time that has passed, and hardly on the number of calls. Gateways that share
    one memory in the store therefore agree on the price.
    """
    reading = Reading(*(value if 0 <= value < math.inf else 0.0 for value in reading))
    cap, held = reading.cap, reading.settled + reading.reserved
    if memory is None or not all(map(math.isfinite, memory)):
        memory = Memory(reading.now, *reading[4:])
    memory = memory._replace(at=_last_time(pacing, memory, reading.now))
    elapsed = max(reading.now - memory.at, 0.0)
    tight = reading.limited > memory.limited or held > pacing.full(cap) * cap
    memory = _smoothed(pacing, memory, reading, elapsed)
    budget = _budget(pacing, memory, cap, held)
    if pacing.window <= SLOW and cap > 0:
        error = held / cap - pacing.target(cap)
        memory = memory._replace(trim=_trim(pacing, table, memory.trim, error, elapsed, budget=budget))
        budget *= math.exp(-memory.trim)
    price = table.price(budget)
    at_bound: Literal["floor", "ceiling"] | None = None
    if price >= table.ceiling > table.floor:
        at_bound = "ceiling"
    elif price <= table.floor:
        at_bound = "floor"
    return PriceUpdate(price, at_bound, tight, memory)


def _last_time(pacing: PaceSettings, memory: Memory, now: float) -> float:
    """When the memory was last updated. If the clock was set back by more than a window or an hour: now.

    Otherwise the price would stand still until the clock has caught up.
    """
    return now if memory.at > now + min(pacing.window, _HOUR) else memory.at


def _smoothed(pacing: PaceSettings, memory: Memory, reading: Reading, elapsed: float) -> Memory:
    """The memory after the reading, except for the trim."""
    window = min(pacing.window, _HOUR)

    def smooth(rate: float, before: float, count: float, tau: float) -> float:
        keep = math.exp(-elapsed / tau)
        gain = (1 - keep) / elapsed if elapsed > _TINY else 1 / tau
        return max(rate * keep + (count - before if count >= before else count) * gain, 0.0)

    return Memory(
        at=max(reading.now, memory.at),
        arrivals=reading.arrivals,
        limited=reading.limited,
        spent=reading.spent,
        expected=reading.expected,
        rate=smooth(memory.rate, memory.arrivals, reading.arrivals, window / 3),
        recent=smooth(memory.recent, memory.arrivals, reading.arrivals, window / 20),
        spending=smooth(memory.spending, memory.spent, reading.spent, window),
        expecting=smooth(memory.expecting, memory.expected, reading.expected, window),
        trim=min(max(memory.trim, _TRIMS[0]), _TRIMS[1]),
    )


def _budget(pacing: PaceSettings, memory: Memory, cap: float, held: float) -> float:
    """B: tokens, by the head's estimates, that each request arriving now may cost. Without the trim.

    The arrival rate is the long average, unless the short one differs by more than chance explains. The
    allowed difference is one standard deviation of a Poisson count for a surge, where delay is expensive,
    and two for its end. For example, over the last 3 seconds of a 60-second window the short average is 30
    requests per second, give or take √(30·20/(2·60)) ≈ 2.2. A long average of 25 is then raised to 27.8;
    one of 33 stays; one of 40 is lowered to 34.5.

    If completions cost 1.2 times their estimates, B is smaller by that factor.
    """
    doubt = math.sqrt(memory.recent * 20 / (2 * min(pacing.window, _HOUR)))
    rate = min(max(memory.rate, memory.recent - doubt), memory.recent + 2 * doubt)
    if rate <= 0:
        return math.inf if held < cap else 0.0
    faith = _FAITH * cap / pacing.window + _TINY
    bias = (memory.spending + faith) / (memory.expecting + faith)
    # a rate may be so small that its product with the bias is zero
    return pacing.spend(cap, held) / max(rate * min(max(bias, _BIASES[0]), _BIASES[1]), _TINY)


def _trim(
    pacing: PaceSettings, table: PriceTable, trim: float, error: float, elapsed: float, *, budget: float
) -> float:
    """The trim after `elapsed` seconds with this error.

    For example, a 60-second window that stays 5 % of its cap above the aim gains 0.1 · 0.05 = 0.005 per
    window: B falls by half a percent. The trim does not wind up: after a silence it fades and only one tick
    counts, and it does not grow in a direction in which the price cannot follow.
    """
    tick = pacing.window / 60
    trim *= math.exp(-max(elapsed - tick, 0.0) / pacing.window)
    change = pacing.integral * min(max(error, -_BAND), _BAND) * min(elapsed, tick) / pacing.window
    price = table.price(budget * math.exp(-trim))
    if (change > 0 and price >= table.ceiling) or (change < 0 and price <= table.floor):
        return trim
    return min(max(trim + change, _TRIMS[0]), _TRIMS[1])
