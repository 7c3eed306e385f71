"""The largest price at which answers are proven to be little worse than under a fixed policy. No I/O.

The promise: at price λ, P(right) is at most α lower than if every request got the rung `against`. One price
after the other is tested, the safest first, and the first failure ends the tests. So the probability that a
price is certified which breaks the promise is at most 1 − `sure`, without a correction for many prices:
Learn-then-Test with fixed-sequence testing. A. Angelopoulos, S. Bates, E. Candès, M. Jordan and L. Lei,
"Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control", 2021 (Annals of Applied
Statistics, 2025).

The hypothesis at one price is that the mean loss L is above α, where L is the score at `against` less the
score at the price's rung. Somebody bets against it: capital starts at 1 and is multiplied by 1 + b·(α − L),
which is never negative. If the hypothesis holds, it reaches 1 / (1 − sure) with probability 1 − sure at most
(Ville). The capital is shared out to bets b of several sizes. I. Waudby-Smith and A. Ramdas, "Estimating
means of bounded random variables by betting", JRSS B, 2024. It is valid in finite samples and at every look,
so one may look daily.

A pair of answers shows one rung beside `against`. It is that of a price drawn from the grid, among the prices
whose rung is not `against`. So the probability of each rung is known. Weighting by its inverse gives an
unbiased loss at every price. A rung that could not have been drawn counts as if all its answers were lost.
So does a pair whose other rung is none that could have been drawn, K times, as it may stand for K pairs.

A request that gets `against` at every price makes no pair. It loses nothing, so that the loss over all
requests is smaller than that over pairs, of which the promise is tested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from router_model.allocation import UNIT
from router_model.arrays import Floats, Ints

STEPS = 4
"""Prices of the grid."""
_SHARES = 0.9 * 0.5 ** np.arange(8)
"""Of the capital, what bets of each size may lose at most."""
_ASSUMED = (1.0, 0.05, 40)
"""Before there is evidence: the size of losses and gains, how often they happen, and pairs they count as."""


class PromiseTerms(NamedTuple):
    """What is promised."""

    loses_at_most: float
    """Points of P(right), as a share of 1."""
    sure: float
    """Probability that no price is certified that breaks the promise."""

    @property
    def needed(self) -> float:
        """The natural logarithm of the capital that certifies a price."""
        return -math.log1p(-self.sure)


class ComparedRungs(NamedTuple):
    """N pairs of answers to the same prompt, oldest first: one at `against`, one at another rung."""

    correct: Floats
    """The head's P(right) of all T rungs, [N, T]."""
    tokens: Floats
    """The completion tokens that it expects, [N, T]."""
    eligible: Floats
    """1 for the rungs that the request could have got, else 0, [N, T]."""
    against: Ints
    """The rung of the fixed policy, [N]."""
    seen: Ints
    """The other rung, [N]."""
    drawn_from: Floats
    """Prices that the other rung was drawn from, evenly among those whose rung is not `against`, [N, K]."""
    loss: Floats
    """The score at `against` less the score at the other rung, within [−1, 1], [N]."""


class TestedPrice(NamedTuple):
    """What the pairs say about one price."""

    price: float
    loss: float
    """The mean loss that was seen; NaN without pairs."""
    evidence: float
    """The natural logarithm of the highest capital so far."""
    certified: bool
    missing: int | None
    """About how many more pairs are needed; 0 if certified, None if at what was seen no number is enough."""


class Certificate(NamedTuple):
    """The outcome of the tests."""

    price: float | None
    """The largest price that is certified; None if none is."""
    tested: tuple[TestedPrice, ...]
    """The prices in order, up to the first that is not certified."""


def price_grid(price: float) -> tuple[float, ...]:
    """The prices that are tested, rising up to the configured one, each twice the one before it."""
    return tuple(price / 2**step for step in range(STEPS - 1, -1, -1)) if price else (0.0,)


def losses_at(pairs: ComparedRungs, price: float) -> Floats:
    """A loss per pair whose mean is that of the policy at this price, or is above it, [N].

    It lies within [−K, K], where K is the number of prices that a rung was drawn from.
    """
    wanted = _rungs(pairs, np.full(len(pairs.loss), price))
    drawn = np.stack([_rungs(pairs, column) for column in pairs.drawn_from.T], axis=1)
    apart = drawn != pairs.against[:, None]
    alike = ((drawn == wanted[:, None]) & apart).sum(axis=1)
    chance = alike / np.maximum(apart.sum(axis=1), 1)
    weighed = np.divide(pairs.loss, chance, out=np.ones(len(chance)), where=chance > 0)
    found = np.where((chance > 0) & (pairs.seen != wanted), 0.0, weighed)
    strange = ~(drawn == pairs.seen[:, None]).any(axis=1)  # the context or a limit gave another rung
    found = np.where(strange, pairs.drawn_from.shape[1], found)
    return np.asarray(np.where(wanted == pairs.against, 0.0, found))


def evidence_over_time(losses: Floats, most: float, bound: float) -> Floats:
    """The natural logarithm of the capital after each loss, [N]. bound: no loss is above."""
    bets = np.log1p((_SHARES / (bound - most))[:, None] * (most - losses)).cumsum(axis=1)
    top = bets.max(axis=0)
    return np.asarray(top + np.log(np.exp(bets - top).mean(axis=0)))


def certify_price(pairs: ComparedRungs, prices: Sequence[float], terms: PromiseTerms) -> Certificate:
    """Test the prices, which must rise, and name the largest one that is certified.

    The pairs must be independent of the head: not ones that it was trained on.
    """
    bound = float(max(pairs.drawn_from.shape[1], 1))
    tested = []
    for price in prices:
        tested.append(_tested(price, losses_at(pairs, price), terms, bound))
        if not tested[-1].certified:
            break
    certified = [one.price for one in tested if one.certified]
    return Certificate(certified[-1] if certified else None, tuple(tested))


def _tested(price: float, losses: Floats, terms: PromiseTerms, bound: float) -> TestedPrice:
    if not len(losses):
        return TestedPrice(price, math.nan, 0.0, certified=False, missing=_missing(losses, terms, bound))
    evidence = float(evidence_over_time(losses, terms.loses_at_most, bound).max())
    certified = evidence >= terms.needed
    missing = 0 if certified else _missing(losses, terms, bound)
    return TestedPrice(price, float(losses.mean()), max(evidence, 0.0), certified, missing)


def _missing(losses: Floats, terms: PromiseTerms, bound: float) -> int | None:
    """Pairs until the best bet has what it needs, if it goes on growing as it did.

    Few pairs say little about that. So some made ones are added, of which a twentieth differ.
    """
    size, often, count = _ASSUMED
    made = np.zeros(count)
    made[: round(often * count)] = size * (-1.0) ** np.arange(round(often * count))
    factors = (_SHARES / (bound - terms.loses_at_most))[:, None] * (
        terms.loses_at_most - np.concatenate((losses, made))
    )
    growth = np.log1p(factors).mean(axis=1)
    had = np.log1p(factors[:, : len(losses)]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        more = np.where(growth > 0, (terms.needed + math.log(len(_SHARES)) - had) / growth, np.inf)
    least = float(more.min())
    return None if math.isinf(least) else max(1, math.ceil(least))


def _rungs(pairs: ComparedRungs, prices: Floats) -> Ints:
    """The rung of highest value of each pair at its own price."""
    worth = np.where(pairs.eligible > 0, pairs.correct - (prices / UNIT)[:, None] * pairs.tokens, -np.inf)
    best = worth >= worth.max(axis=1, keepdims=True)
    return np.asarray(np.where(best, pairs.tokens, np.inf).argmin(axis=1))
