"""Means by arm and their differences, with intervals that count conversations. No I/O.

Requests of one conversation are alike, and the hold-out draws conversations. So a mean per request is a ratio
of two sums over conversations, and its variance is that between conversations (Cochran, Sampling Techniques,
1977, §6.3; for experiments on the web Deng, Knoblich and Lu, KDD 2018, §3.2). With y the amount and n the
requests of a conversation, C conversations and r = Σy / Σn:

    Var(r) = C / (C − 1) · Σ (y − r n)² / (Σn)²

Arms are independent, so the variances of two means add up.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from msgspec import Struct

from gateway.evidence.measuring.intervals import newcombe, wilson
from gateway.evidence.quality import Bounded

FEWEST_CONVERSATIONS = 30
"""Conversations of an arm below which there is not enough evidence: the interval would be a guess."""
_Z = NormalDist().inv_cdf(0.975)


class ClusterSums(Struct, frozen=True):
    """Sums over the conversations of one arm, of one amount y in n requests each."""

    clusters: int
    """Conversations with a request whose amount is known."""
    requests: int
    """Requests whose amount is known: Σn."""
    total: float
    """Σy."""
    squared_requests: float
    """Σn²."""
    squares: float
    """Σy²."""
    products: float
    """Σyn."""


NOTHING = ClusterSums(0, 0, 0.0, 0.0, 0.0, 0.0)


class ArmMean(Struct, frozen=True):
    """The mean of an amount per request in one arm."""

    clusters: int
    requests: int
    mean: float | None
    """None without requests."""


class Saving(Struct, frozen=True):
    """What an adaptive request needs less than one of the hold-out. Negative if it needs more."""

    adaptive: ArmMean
    holdout: ArmMean
    per_request: Bounded | None
    """The mean of the hold-out less that of the adaptive arm; None: not enough evidence."""
    total: Bounded | None
    """That, times the adaptive requests whose amount is known."""
    share: Bounded | None
    """Of what the hold-out needs; None also if the hold-out needs nothing."""


class RightAgainst(Struct, frozen=True):
    """Right answers of the adaptive arm against those of the hold-out, among judged answers."""

    adaptive: ArmMean
    holdout: ArmMean
    adaptive_share: Bounded | None
    """None without judged answers."""
    holdout_share: Bounded | None
    difference: Bounded | None
    """Adaptive less hold-out; None: not enough evidence."""


def mean_of(sums: ClusterSums) -> ArmMean:
    """The mean per request."""
    mean = sums.total / sums.requests if sums.requests else None
    return ArmMean(sums.clusters, sums.requests, mean)


def variance_of(sums: ClusterSums) -> float:
    """The variance of the mean per request, see the head of this module. Infinite below two conversations."""
    if sums.clusters < 2:
        return math.inf
    r = sums.total / sums.requests
    residual = max(0.0, sums.squares - 2 * r * sums.products + r * r * sums.squared_requests)
    return sums.clusters / (sums.clusters - 1) * residual / sums.requests**2


def saving_of(adaptive: ClusterSums, holdout: ClusterSums) -> Saving:
    """What was saved, by arm as drawn (intention to treat), whatever tier was served."""
    ours, theirs = mean_of(adaptive), mean_of(holdout)
    if (
        min(adaptive.clusters, holdout.clusters) < FEWEST_CONVERSATIONS
        or ours.mean is None
        or theirs.mean is None
    ):
        return Saving(ours, theirs, None, None, None)
    own, other = variance_of(adaptive), variance_of(holdout)
    t = _student(_freedom(own, adaptive.clusters, other, holdout.clusters))
    difference, half = theirs.mean - ours.mean, t * math.sqrt(own + other)
    each = Bounded(difference, difference - half, difference + half)
    total = Bounded(*(adaptive.requests * value for value in (each.mean, each.low, each.high)))
    return Saving(ours, theirs, each, total, _share(ours.mean, own, theirs.mean, other, t))


def _share(ours: float, own: float, theirs: float, other: float, t: float) -> Bounded | None:
    """One minus the ratio of the means, with the interval of its logarithm (delta method)."""
    if ours <= 0 or theirs <= 0:
        return None
    ratio, half = math.log(ours / theirs), t * math.sqrt(own / ours**2 + other / theirs**2)
    return Bounded(*(1 - math.exp(end) for end in (ratio, ratio + half, ratio - half)))


def right_of(adaptive: ClusterSums, holdout: ClusterSums) -> RightAgainst:
    """Shares of right answers and their difference.

    A share has Wilson's interval, of as many single answers as its variance between conversations is worth
    (Korn and Graubard, 1998), and the difference has Newcombe's (1998, method 10). So an arm where all
    answers are right still has an interval.
    """
    ours, theirs = _right_share(adaptive), _right_share(holdout)
    enough = min(adaptive.clusters, holdout.clusters) >= FEWEST_CONVERSATIONS
    difference = None
    if enough and ours and theirs:
        difference = Bounded(
            *newcombe((ours.mean, ours.low, ours.high), (theirs.mean, theirs.low, theirs.high))
        )
    return RightAgainst(mean_of(adaptive), mean_of(holdout), ours, theirs, difference)


def _right_share(sums: ClusterSums) -> Bounded | None:
    if not sums.requests:
        return None
    mean = min(max(sums.total / sums.requests, 0.0), 1.0)
    return Bounded(mean, *wilson(mean, _worth(sums, mean)))


def _worth(sums: ClusterSums, mean: float) -> float:
    """Single answers of the same variance, at most as many as there are. If unknown, the conversations."""
    variance = variance_of(sums)
    if not 0 < mean < 1 or not 0 < variance < math.inf:
        return sums.clusters
    return min(max(mean * (1 - mean) / variance, 1.0), sums.requests)


def _freedom(own: float, clusters: int, other: float, other_clusters: int) -> float:
    """Degrees of freedom of a difference of two means (Welch and Satterthwaite)."""
    spread = own**2 / (clusters - 1) + other**2 / (other_clusters - 1)
    return (own + other) ** 2 / spread if spread > 0 else math.inf


def _student(freedom: float) -> float:
    """The 97.5 % quantile of Student's t, to 0.001 from 5 degrees on (Abramowitz and Stegun, 26.7.5)."""
    z, v = _Z, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / v**power for power, term in enumerate(terms, 1))


def shares_differ(arms: list[tuple[int, int]]) -> bool:
    """Whether the held-out share of conversations differs between configurations, at 0.1 %.

    arms: adaptive and held-out conversations of each. Pearson's χ² of the table, whose quantile is that of
    Wilson and Hilferty (1931). If the share changes, the arms have requests of different times.
    """
    total, held = sum(map(sum, arms)), sum(holdout for _, holdout in arms)
    if len(arms) < 2 or not 0 < held < total:
        return False
    share, v = held / total, len(arms) - 1
    found = sum(
        (holdout - share * (adaptive + holdout)) ** 2 / (share * (1 - share) * (adaptive + holdout))
        for adaptive, holdout in arms
    )
    z = NormalDist().inv_cdf(0.999)
    return found > v * (1 - 2 / (9 * v) + z * math.sqrt(2 / (9 * v))) ** 3
