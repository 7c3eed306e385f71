"""λ*(B): the price at which requests cost B tokens on average, from what the head expects of them. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

Step = tuple[float, float]
"""From one tier of a hull to the next: Δp̂ for each 1,000 tokens, Δĉ in tokens."""

_TINY = 1e-9


class PriceTable:
    """λ*(B): the price at which requests cost B tokens on average; falls as B rises.

    budgets: completion tokens a request, rising and positive. prices: probability of a right answer that
    1,000 tokens must buy, positive, not rising. Between points the interpolation is linear in the logarithms
    of both; below the first budget the price is the first (`ceiling`), above the last the last (`floor`).
    """

    __slots__ = ("_budgets", "_prices", "ceiling", "floor")

    def __init__(self, budgets: Sequence[float], prices: Sequence[float]) -> None:
        """Raises ValueError for anything that is not such a table."""
        if not budgets or len(budgets) != len(prices):
            raise ValueError("a price table needs as many prices as budgets, and at least one")
        if not all(0 < value < math.inf for value in [*budgets, *prices]):
            raise ValueError("budgets and prices must be positive and finite")
        if any(b >= c for b, c in pairwise(budgets)):
            raise ValueError("budgets must rise")
        if any(p < q for p, q in pairwise(prices)):
            raise ValueError("prices must not rise with the budget")
        self._budgets = [math.log(value) for value in budgets]
        self._prices = [math.log(value) for value in prices]
        self.ceiling, self.floor = float(prices[0]), float(prices[-1])

    def price(self, tokens: float) -> float:
        """The price that makes requests cost `tokens` each; the ceiling for nothing, or for no number."""
        if not tokens > 0:
            return self.ceiling
        wanted = math.log(tokens)
        after = bisect_right(self._budgets, wanted)
        if after == 0:
            return self.ceiling
        if after == len(self._budgets):
            return self.floor
        low, high = self._budgets[after - 1 : after + 1]
        upper, lower = self._prices[after - 1 : after + 1]
        price = math.exp(upper + (lower - upper) * (wanted - low) / (high - low))
        return min(max(price, self.floor), self.ceiling)  # exp(log(x)) may miss x in the last digit

    @classmethod
    def of(cls, estimates: Iterable[tuple[Sequence[float], Sequence[float]]], points: int = 64) -> PriceTable:
        """The table of a sample of requests, each given as its (p̂ by tier, ĉ by tier).

        This is the dual of the multiple-choice knapsack: the steps of every request's concave hull, dearest
        first, and what they have cost so far. At most `points` points. Raises ValueError without estimates.
        """
        return cls.of_hulls([(min(tokens), hull(correct, tokens)) for correct, tokens in estimates], points)

    @classmethod
    def of_hulls(cls, hulls: Collection[tuple[float, list[Step]]], points: int = 64) -> PriceTable:
        """As `of`, from the cheapest tier's tokens and the hull of each request."""
        count = len(hulls)
        if not count:
            raise ValueError("a price table needs at least one estimate")
        base = math.fsum(cheapest for cheapest, _ in hulls)
        steps = sorted((step for _, steps in hulls for step in steps), reverse=True)
        budgets = [max(base / count, _TINY)]
        prices = [max(steps[0][0], _TINY) if steps else 1.0]
        spent, shown = base, max(len(steps) // (points - 1), 1)
        for at, (price, more) in enumerate(steps, 1):
            spent += more
            if (at % shown == 0 or at == len(steps)) and spent / count > budgets[-1]:
                budgets.append(spent / count)
                prices.append(max(price, _TINY))
        return cls(budgets, prices)


def hull(correct: Sequence[float], tokens: Sequence[float]) -> list[Step]:
    """The steps from the cheapest tier to the best one: (Δp̂ for each 1,000 tokens, Δĉ), dearest first.

    At price λ the best value p̂ − λ·ĉ/1000 is reached by taking the steps whose first number exceeds λ.
    """
    at = min(range(len(tokens)), key=lambda k: (tokens[k], -correct[k]))
    steps = list[Step]()
    while True:
        better = [k for k in range(len(tokens)) if tokens[k] > tokens[at] and correct[k] > correct[at]]
        if not better:
            return steps
        gains = {k: (correct[k] - correct[at]) / (tokens[k] - tokens[at]) for k in better}
        following = max(better, key=lambda k: (gains[k], tokens[k]))
        steps.append((1000 * gains[following], tokens[following] - tokens[at]))
        at = following


class RecentPrices:
    """The price table of the requests seen last: right for today's prompts, models and permitted tiers.

    A table made beforehand is right for the prompts it was made from only; it serves until enough were seen.
    """

    def __init__(self, first: PriceTable, size: int = 512, every: int = 64) -> None:
        """first: the table until `every` requests were seen. size: requests remembered."""
        self._hulls: deque[tuple[float, list[Step]]] = deque(maxlen=size)
        self._table, self._every, self._fresh = first, every, 0

    def add(self, correct: Sequence[float], tokens: Sequence[float]) -> None:
        """A request's estimates for the tiers it may get."""
        self._hulls.append((min(tokens), hull(correct, tokens)))
        self._fresh += 1

    @property
    def table(self) -> PriceTable:
        """At most `every` requests old."""
        if self._fresh >= self._every:
            self._table, self._fresh = PriceTable.of_hulls(self._hulls), 0
        return self._table
