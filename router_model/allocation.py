"""What tokens are worth: the value of a tier, the price that fits a budget, the exact allocation of a batch.

Choosing one tier for each request under a budget of tokens is a multiple-choice knapsack. Its linear
relaxation is solved exactly by walking each request's concave hull, steepest step first (Sinha and Zoltners,
1979). At most one request is left between two tiers. The slope of the last step taken is the price λ: the
probability of a correct answer that 1,000 more tokens would buy.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from operator import neg
from typing import NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from router_model.arrays import Floats

UNIT = 1000
"""Prices are quoted for this many tokens."""

Step = tuple[float, float]
"""One step along a hull: correctness gained per 1,000 tokens, and the tokens it takes."""

_LEAST = 1e-9  # price tables hold positive numbers only


@overload
def value(correct: float, tokens: float, price: float) -> float: ...
@overload
def value(correct: Floats, tokens: Floats, price: float | Floats) -> Floats: ...
def value(correct: float | Floats, tokens: float | Floats, price: float | Floats) -> float | Floats:
    """p̂ − λ·ĉ/1000: the probability of a correct answer less the price of its tokens."""
    return correct - price * tokens / UNIT


def best_tier(
    correct: Sequence[float], tokens: Sequence[float], price: float, among: Iterable[int] | None = None
) -> int:
    """The position of the tier of highest value. Tiers stand cheapest first, and the first one wins a tie.

    among: the positions to choose from, at least one; all of them by default.
    """
    best, highest = -1, -math.inf
    for tier in range(len(correct)) if among is None else among:
        worth = correct[tier] - price * tokens[tier] / UNIT  # `value`, whose calls take as long again
        if worth > highest or best < 0:
            best, highest = tier, worth
    return best


def best_tiers(correct: Floats, tokens: Floats, price: float) -> NDArray[np.intp]:
    """The tier of highest value of each row of estimates [N, T]; a tie goes to fewer tokens.

    The price may be infinite: the cheapest tier then wins whatever it earns.
    """
    if np.isinf(price):
        return np.asarray(tokens.argmin(axis=1))
    values = value(correct, tokens, price)
    best = values >= values.max(axis=1, keepdims=True)
    return np.asarray(np.where(best, tokens, np.inf).argmin(axis=1))


def hull(correct: Sequence[float], tokens: Sequence[float]) -> list[int]:
    """Positions on the upper concave hull, from the cheapest point to the best one.

    Every other point costs more and earns less than one of these, or than a mix of two of them.
    """
    corners: list[int] = []
    slopes = [math.inf]  # of the segment that leads to each corner
    for _, _, point in sorted(zip(tokens, map(neg, correct), range(len(tokens)), strict=True)):
        slope = math.inf
        if corners:
            if correct[point] <= correct[corners[-1]]:
                continue
            slope = _slope(correct, tokens, corners[-1], point)
            while slopes[-1] <= slope and len(corners) > 1:
                del corners[-1], slopes[-1]
                slope = _slope(correct, tokens, corners[-1], point)
            slopes.append(slope)
        corners.append(point)
    return corners


def _slope(correct: Sequence[float], tokens: Sequence[float], low: int, high: int) -> float:
    return (correct[high] - correct[low]) / (tokens[high] - tokens[low])


def steps(correct: Sequence[float], tokens: Sequence[float]) -> list[Step]:
    """The steps from the cheapest tier to the best one, steepest first.

    At price λ the best value takes every step that gains more than λ per 1,000 tokens.
    """
    return [
        (UNIT * _slope(correct, tokens, low, high), tokens[high] - tokens[low])
        for low, high in pairwise(hull(correct, tokens))
    ]


class PriceTable:
    """λ*(B): the price at which requests use B tokens on average; falls as B rises.

    Between points the interpolation is linear in the logarithms of both. Below the first budget the price is
    the first one (`ceiling`), above the last budget the last one (`floor`).
    """

    __slots__ = ("_log_budgets", "_log_prices", "budgets", "ceiling", "floor", "prices")

    def __init__(self, budgets: Sequence[float], prices: Sequence[float]) -> None:
        """budgets: tokens per request, rising. prices: per 1,000 tokens, not rising. All positive and finite.

        Raises: ValueError.
        """
        if not budgets or len(budgets) != len(prices):
            raise ValueError("a price table needs as many prices as budgets, and at least one")
        if not all(0 < number < math.inf for number in [*budgets, *prices]):
            raise ValueError("budgets and prices must be positive and finite")
        if any(left >= right for left, right in pairwise(budgets)):
            raise ValueError("budgets must rise")
        if any(left < right for left, right in pairwise(prices)):
            raise ValueError("prices must not rise with the budget")
        self.budgets, self.prices = tuple(budgets), tuple(prices)
        self._log_budgets = [math.log(budget) for budget in budgets]
        self._log_prices = [math.log(price) for price in prices]
        self.ceiling, self.floor = float(prices[0]), float(prices[-1])

    def price(self, tokens: float) -> float:
        """The price at which requests use `tokens` each; the ceiling for zero, negative numbers and NaN."""
        if not tokens > 0:
            return self.ceiling
        wanted = math.log(tokens)
        after = bisect_right(self._log_budgets, wanted)
        if after == 0:
            return self.ceiling
        if after == len(self._log_budgets):
            return self.floor
        low, high = self._log_budgets[after - 1 : after + 1]
        upper, lower = self._log_prices[after - 1 : after + 1]
        price = math.exp(upper + (lower - upper) * (wanted - low) / (high - low))
        return min(max(price, self.floor), self.ceiling)  # exp(log(x)) may miss x in the last digit

    @classmethod
    def of_points(cls, budgets: Iterable[float], prices: Iterable[float]) -> Self | None:
        """A table through points, e.g. of `demand`; None if no point is positive.

        Points that are not positive are left out. Of equal budgets the last one counts.
        """
        pairs = zip(budgets, prices, strict=True)
        points = {float(budget): float(price) for budget, price in pairs if budget > 0 and price > 0}
        return cls(list(points), list(points.values())) if points else None

    @classmethod
    def of(cls, estimates: Iterable[tuple[Sequence[float], Sequence[float]]], points: int = 64) -> Self:
        """A table of requests, each (p̂ by tier, ĉ by tier); at most `points` points. Raises: ValueError."""
        return cls.of_steps([(min(tokens), steps(correct, tokens)) for correct, tokens in estimates], points)

    @classmethod
    def of_steps(cls, requests: Collection[tuple[float, list[Step]]], points: int = 64) -> Self:
        """The same, from the tokens of each request's cheapest tier and the steps of its hull.

        This is the dual of the knapsack: all steps, steepest first, and what has been spent after each.
        """
        count = len(requests)
        if not count:
            raise ValueError("a price table needs at least one estimate")
        spent = math.fsum(cheapest for cheapest, _ in requests)
        falling = sorted((step for _, climb in requests for step in climb), reverse=True)
        budgets = [max(spent / count, _LEAST)]
        prices = [max(falling[0][0], _LEAST) if falling else 1.0]
        every = max(len(falling) // (points - 1), 1)
        for number, (price, extra) in enumerate(falling, 1):
            spent += extra
            if (number % every == 0 or number == len(falling)) and spent / count > budgets[-1]:
                budgets.append(spent / count)
                prices.append(max(price, _LEAST))
        return cls(budgets, prices)


class RequestEstimates:
    """What a request is expected to earn and to cost at each tier that it may get, and the steps of that."""

    def __init__(
        self, correct: Sequence[float], tokens: Sequence[float], choices: int = 1, prompt: float = 0.0
    ) -> None:
        """correct: P(right). tokens: completion tokens of one choice. prompt: tokens beside them."""
        self._of = correct, tokens, choices, prompt

    @cached_property
    def climb(self) -> tuple[float, list[Step]]:
        """The tokens of the cheapest tier, and the steps of the hull. Worked out once, when asked for."""
        correct, tokens, choices, prompt = self._of
        spent = [prompt + choices * count for count in tokens]
        return min(spent), steps(correct, spent)


class RecentPrices:
    """The price table of the most recent requests, so that it fits today's prompts, models and tiers.

    A table made in advance fits only the prompts it was made from. It serves until enough requests were seen.
    """

    def __init__(self, first: PriceTable, size: int = 512, every: int = 64) -> None:
        """first: the table until `every` requests were seen. size: number of requests remembered."""
        self._requests: deque[RequestEstimates] = deque(maxlen=size)
        self._table, self._every, self._fresh = first, every, 0

    def add(self, request: RequestEstimates) -> None:
        """Note a request, which several tables may share."""
        self._requests.append(request)
        self._fresh += 1

    def renew(self) -> bool:
        """Make a new table if `every` requests were added. That takes up to 4 ms. Returns whether it did."""
        if self._fresh < self._every:
            return False
        self._table, self._fresh = PriceTable.of_steps([request.climb for request in self._requests]), 0
        return True

    @property
    def table(self) -> PriceTable:
        """At most `every` requests old."""
        self.renew()
        return self._table


class Allocation(NamedTuple):
    """Which tier each request of a batch gets."""

    probabilities: Floats
    """Of each tier, [N, T]. Every row sums to 1, and at most one row is not 0/1."""
    price: float
    """Correctness that 1,000 more tokens would buy; 0 if the budget is slack, infinite if it is less than the
    cheapest tiers take."""


class _Climb(NamedTuple):
    """The steps of all rows' hulls, steepest first."""

    cheapest: NDArray[np.int64]
    """The tier in which each row starts, [N]."""
    row: NDArray[np.int64]
    below: NDArray[np.int64]
    above: NDArray[np.int64]
    extra: Floats
    slope: Floats


def _climb(correct: Floats, tokens: Floats) -> _Climb:
    right, spent = correct.tolist(), tokens.tolist()
    hulls = [hull(*row) for row in zip(right, spent, strict=True)]
    moves = [
        (rank, row, low, high)
        for row, corners in enumerate(hulls)
        for rank, (low, high) in enumerate(pairwise(corners))
    ]
    rank, row, below, above = np.array(moves, np.int64).reshape(-1, 4).T
    extra = tokens[row, above] - tokens[row, below]
    slope = (correct[row, above] - correct[row, below]) / extra
    order = np.lexsort((row, rank, -slope))  # equal slopes: every row's first step before any second one
    cheapest = np.array([corners[0] for corners in hulls], np.int64)
    return _Climb(cheapest, row[order], below[order], above[order], extra[order], slope[order])


def allocate(correct: Floats, tokens: Floats, budget: float) -> Allocation:
    """The tiers of highest mean correctness that use at most `budget` tokens per request on average.

    correct, tokens: [N, T], N ≥ 1, finite. Exact: the optimum of the linear programme over [N, T].
    """
    climb = _climb(correct, tokens)
    rows, tier = np.arange(len(correct)), climb.cheapest
    probabilities = np.zeros(correct.shape)
    left = budget * len(correct) - tokens[rows, tier].sum()
    spent = np.cumsum(climb.extra)
    whole = int(np.searchsorted(spent, max(left, 0.0), side="right"))
    tier[climb.row[:whole]] = climb.above[:whole]  # the steps of one row are in order, so the last one stays
    probabilities[rows, tier] = 1.0
    if whole == len(spent) and left >= 0:
        return Allocation(probabilities, 0.0)
    if left < 0:
        return Allocation(probabilities, np.inf)
    part = (left - (spent[whole - 1] if whole else 0.0)) / climb.extra[whole]
    probabilities[climb.row[whole], climb.below[whole]] -= part
    probabilities[climb.row[whole], climb.above[whole]] += part
    return Allocation(probabilities, float(climb.slope[whole]) * UNIT)


def demand(correct: Floats, tokens: Floats) -> tuple[Floats, Floats]:
    """The demand curve: mean tokens per request, rising, and the price at which they are used, falling.

    These are the steps of the dual of `allocate`: the least price that keeps spending within each budget.
    """
    climb = _climb(correct, tokens)
    cheapest = float(tokens[np.arange(len(correct)), climb.cheapest].mean())
    return cheapest + np.cumsum(climb.extra) / len(correct), climb.slope * UNIT
