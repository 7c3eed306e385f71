"""The price of tokens: from what a budget holds and what arrives to λ. Pure: memory in, memory out.

Feed-forward: λ*(B), the price at which the head's own estimates cost B tokens a request, at the B that the
cap leaves for each request at today's arrival rate and today's length of answers. Feedback on B by how full
the window is: proportional on the last stretch before the cap, integral elsewhere. The limiter in the store
holds the cap whatever happens here; the price decides who gets the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from router_model.allocation import PriceTable

SLOW = 900.0  # seconds; a longer window is paced by a plan, as its use answers too late for feedback

_TINY = 1e-9


class Reading(NamedTuple):
    """What the store says of one budget, all of one instant.

    now: the store's clock, seconds. settled, reserved, cap: tokens within the window.
    The others are counted since the budget's first request and only grow; one that is below what was
    remembered was restarted. arrivals: requests that asked. limited: those of them that the limiter shortened
    or refused. spent: tokens settled. expected: what the head had predicted for those same answers.
    """

    now: float
    settled: float
    reserved: float
    cap: float
    arrivals: float
    limited: float = 0.0
    spent: float = 0.0
    expected: float = 0.0


class Memory(NamedTuple):
    """What one observation leaves for the next: numbers, kept in the store as one text.

    The counters of the last reading; then, smoothed and a second: arrivals over a third of the window and
    over a twentieth, tokens spent, tokens expected. trim: the integral, in units of ln B.
    """

    at: float
    arrivals: float
    limited: float
    spent: float
    expected: float
    rate: float = 0.0
    recent: float = 0.0
    spending: float = 0.0
    expecting: float = 0.0
    trim: float = 0.0

    def dump(self) -> str:
        """As text; exact, so that it may serve for compare-and-set."""
        return " ".join(repr(float(value)) for value in self)

    @classmethod
    def load(cls, text: str | bytes | None) -> Memory | None:
        """From text; None for what is missing, damaged or of another release."""
        try:
            values = [float(word) for word in (text or "").split()]
        except ValueError:
            return None
        return cls(*values) if len(values) == len(cls._fields) and all(map(math.isfinite, values)) else None


class Paced(NamedTuple):
    """The price for the requests that follow, and what to remember.

    at_bound: "ceiling" when a higher price would change nothing, as every request already gets its cheapest
    tier; "floor" when a lower one would not, as every request already gets its best.
    tight: the limiter has acted since the last reading, or is about to; no time for experiments.
    """

    price: float
    at_bound: Literal["floor", "ceiling"] | None
    tight: bool
    memory: Memory


@dataclass(frozen=True, slots=True)
class Pacing:
    """How one budget is paced; docs/pacing.md says how the numbers were found.

    window: seconds. largest: the most tokens one request may reserve; room for it is left.
    aim: share of the cap that settled and reserved tokens should fill. brake: share beyond which less and
    less is spent, down to nothing at the cap. integral: change of ln B over a window spent one whole cap off.
    burst, taper (windows over SLOW): spend at most `burst` times the even pace, and what remains over no less
    than this share of the window.
    """

    window: float
    largest: float = 0.0
    aim: float = 0.96
    brake: float = 0.98
    integral: float = 0.1
    burst: float = 3.0
    taper: float = 1 / 24

    def full(self, cap: float) -> float:
        """The share of the cap where braking begins; less where one request takes much of the cap."""
        return max(min(self.brake, 1 - self.largest / cap), 0.5) if cap > 0 else 0.5

    def target(self, cap: float) -> float:
        """The share of the cap to fill."""
        return min(self.aim, self.full(cap))

    def spend(self, cap: float, held: float) -> float:
        """Tokens a second that the requests arriving now may cost.

        In a short window the even pace, less on the last stretch before the cap; in a slow one the plan.
        """
        left = max(cap - held, 0.0)
        if self.window > SLOW:
            return min(self.burst * cap, left / self.taper) / self.window
        if cap <= 0:
            return 0.0
        return min(left / (cap - self.full(cap) * cap), 1.0) * self.target(cap) * cap / self.window


_BAND = 0.1  # of the cap: an error beyond it counts no more, as a use may be far below but never far above
_TRIMS = -1.0, 1.0
_FAITH = 0.1  # of a window's tokens: what must have been settled before the head's lengths are doubted
_BIASES = 0.25, 4.0
_HOUR = 3600.0


def observe(pacing: Pacing, table: PriceTable, memory: Memory | None, reading: Reading) -> Paced:
    """The price after a reading. Any owner of `memory` may call this at any time, and store what it returns.

    The result depends on the time that passed, hardly on how often this was called: replicas that observe one
    store, and store what they conclude by compare-and-set, agree. Bears any numbers, NaN included.
    """
    reading = Reading(*(value if 0 <= value < math.inf else 0.0 for value in reading))
    cap, held = reading.cap, reading.settled + reading.reserved
    if memory is None or not all(map(math.isfinite, memory)):
        memory = Memory(reading.now, *reading[4:])
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
    return Paced(price, at_bound, tight, memory)


def _smoothed(pacing: Pacing, memory: Memory, reading: Reading, elapsed: float) -> Memory:
    """The memory after the reading, but for the trim."""
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


def _budget(pacing: Pacing, memory: Memory, cap: float, held: float) -> float:
    """Tokens by the head's own estimates that each request arriving now may cost, without the trim.

    A surge, and its end, show in the short average first; it overrules the long one by what no accident
    explains: one standard deviation of a Poisson count upwards, where delay is dear, and two downwards.
    What answers cost beyond their estimates is taken off as well.
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
    pacing: Pacing, table: PriceTable, trim: float, error: float, elapsed: float, *, budget: float
) -> float:
    """The integral after `elapsed` seconds with this error.

    No wind-up: a silence counts as one tick and lets the trim fade, and nothing is added in a direction in
    which the price can go no further.
    """
    tick = pacing.window / 60
    trim *= math.exp(-max(elapsed - tick, 0.0) / pacing.window)
    change = pacing.integral * min(max(error, -_BAND), _BAND) * min(elapsed, tick) / pacing.window
    price = table.price(budget * math.exp(-trim))
    if (change > 0 and price >= table.ceiling) or (change < 0 and price <= table.floor):
        return trim
    return min(max(trim + change, _TRIMS[0]), _TRIMS[1])


class Draw(NamedTuple):
    """A tier's position, and the probability with which each eligible position was to be drawn."""

    tier: int
    probabilities: dict[int, float]


def explore(best: int, eligible: Sequence[int], epsilon: float, uniform: float) -> Draw:
    """With probability ε any eligible tier, all alike, else the best one.

    uniform: a random number in [0, 1). Call with ε = 0 while the limiter binds: a tight window is no place
    for experiments.
    """
    share = epsilon / len(eligible)
    probabilities = {k: share + (1 - epsilon if k == best else 0.0) for k in eligible}
    if uniform < epsilon:
        return Draw(eligible[min(int(uniform / share), len(eligible) - 1)], probabilities)
    return Draw(best, probabilities)


def propensity(draw: Draw, granted: int, fits: Iterable[int]) -> float:
    """The probability that the granted tier was the outcome, limiter included.

    fits: the eligible positions for which the window had room at that moment. The limiter grants the highest
    of them at or below the one drawn, so several draws may lead to one tier. 0 where `granted` was no
    possible outcome.
    """
    room = sorted(fits)
    return math.fsum(
        probability
        for drawn, probability in draw.probabilities.items()
        if max((k for k in room if k <= drawn), default=None) == granted
    )
