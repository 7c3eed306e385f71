"""What a policy would have been worth, from the log of another one that drew its rungs at random. No I/O.

Each row has the rung that was served, and the probabilities μ with which it was drawn. A policy π gives each
rung a probability, too. The weight of a row is w = π(rung) / μ(rung).

Self-normalised inverse propensity scores: Σ w·y / Σ w. It needs no model of y, and a weight that is large
moves it less than it moves the plain mean of w·y. A. Swaminathan and T. Joachims, "The Self-Normalized
Weighing for Counterfactual Learning", NIPS 2015.

Doubly robust: mean over rows of Σ_r π(r)·q(r), plus the mean of w·(y − q(rung)), where q are the head's
estimates. It is right if the propensities are, however wrong the estimates; good estimates make its interval
narrow. M. Dudík, J. Langford and L. Li, "Doubly Robust Policy Evaluation and Learning", ICML 2011.

Intervals are those of the linearised estimate: each row's influence, summed over the rows of a conversation,
which belong together. Student's t stands for the normal quantile. Its degrees of freedom are the effective
number of conversations, (Σ φ²)² / Σ φ⁴, so that a few rows of large weight give a wide interval.

Only some answers have a score. The estimates take these as a random sample of all answers of their rung.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from router_model.allocation import UNIT
from router_model.arrays import Floats, Ints

Weighing = Literal["snips", "dr"]
LEAST_EFFECTIVE = 100.0
"""Judged answers that a log must be worth for a policy. With fewer, too few large weights were drawn."""
MOST_UNCOVERED = 0.01
"""The share of the policy's choices that the log may be unable to show."""
_LEAST_FREEDOM = 3.0


class Logged(NamedTuple):
    """N decisions that were logged, over T rungs."""

    rung: Ints
    """Position of the rung that was served, [N]."""
    propensity: Floats
    """The probability of each rung, [N, T], above 0 for the one that was served. Each row sums to 1."""
    score: Floats
    """From 0 for wrong to 1 for right; NaN where nobody judged, [N]."""
    tokens: Floats
    """Completion tokens; NaN where they are not known, [N]."""
    correct: Floats
    """P(right) as the head estimates it, [N, T]."""
    expected: Floats
    """Completion tokens as the head expects them, [N, T]."""
    conversation: Ints
    """Rows with the same number belong together, [N]."""


class Support(NamedTuple):
    """How much a log can say about a policy."""

    effective: float
    """The judged answers, times (E w)² / E w² (L. Kish, "Survey Sampling", 1965).

    The expectations are those of the draw. What was drawn would look best where no large weight was.
    """
    uncovered: float
    """The share of the policy's choices that the log could not have served."""
    clipped: float
    """The share of the weight that clipping takes away. A share of right answers is biased by no more."""

    @property
    def missing(self) -> str | None:
        """Why the log is not enough evidence; None if it is."""
        if self.uncovered > MOST_UNCOVERED:
            return (
                f"not enough evidence: for {self.uncovered:.0%} of the choices the log could not have served "
                "that rung, and shows the policies only where both choose alike (`exploration` is needed)"
            )
        if self.effective < LEAST_EFFECTIVE:
            return (
                f"not enough evidence: the log is worth {self.effective:.0f} judged answers of this policy, "
                f"and {LEAST_EFFECTIVE:.0f} are needed"
            )
        return None


class Estimated(NamedTuple):
    """An estimate with its interval, which is NaN where there is not enough evidence."""

    estimate: float
    low: float
    high: float


class PolicyEstimate(NamedTuple):
    """What a policy is worth per request, or how much more than another one."""

    right: Estimated
    """The share of right answers."""
    tokens: Estimated
    value: Estimated
    """Right answers less the price of the tokens, see `allocation.value`."""
    support: Support
    """Of two policies, the worse of each figure."""


class _Linear(NamedTuple):
    """An estimate and the influence of each row on it, [N]."""

    estimate: float
    influence: Floats

    def minus(self, other: _Linear, factor: float = 1.0) -> _Linear:
        return _Linear(self.estimate - factor * other.estimate, self.influence - factor * other.influence)


class _Parts(NamedTuple):
    right: _Linear
    tokens: _Linear


def chosen_alone(rung: Ints, rungs: int) -> Floats:
    """The probabilities of a policy that always serves these rungs, [N, T]."""
    return np.asarray(np.eye(rungs)[rung])


def drawn_propensities(rung: Ints, propensity: Floats, chosen: Ints, eligible: Floats) -> Floats:
    """The probability of each rung, [N, T], from that of the rung that was served.

    The gateway serves the chosen rung, except that with a small probability it draws any eligible one.

    chosen: the rung of highest value, [N]. eligible: 1 for the rungs that the bounds allowed, 0 elsewhere,
    [N, T]. A row whose served rung is not eligible, or had probability 1, could have had no other.
    """
    rows = np.arange(len(rung))
    others = eligible.sum(axis=1) - 1
    alone = (propensity >= 1) | (others < 1) | (eligible[rows, rung] == 0) | (eligible[rows, chosen] == 0)
    usual = rung == chosen
    share = np.where(usual, (1 - propensity) / np.maximum(others, 1), propensity)
    found = eligible * share[:, None]
    found[rows, chosen] = 1 - others * share
    return np.asarray(np.where(alone[:, None], chosen_alone(rung, eligible.shape[1]), found))


def support(log: Logged, policy: Floats, clip: float = math.inf) -> Support:
    """How much the log can say about the policy. policy: probabilities of the rungs, [N, T]."""
    drawn = log.propensity > 0
    ratio = np.divide(policy, log.propensity, out=np.zeros_like(policy), where=drawn)
    cut = np.minimum(ratio, clip)
    covered = float((policy * drawn).sum(axis=1).mean())
    mean, square = (float((log.propensity * cut**power).sum(axis=1).mean()) for power in (1, 2))
    judged = int((~np.isnan(log.score)).sum())
    return Support(
        effective=judged * mean**2 / square if square else 0.0,
        uncovered=1 - covered,
        clipped=1 - mean / covered if covered else 0.0,
    )


def policy_estimate(
    log: Logged,
    policy: Floats,
    price: float,
    *,
    method: Weighing = "dr",
    clip: float = math.inf,
    level: float = 0.95,
) -> PolicyEstimate:
    """What the policy is worth. price: of 1,000 tokens, in right answers.

    clip: the largest weight. It makes the interval narrower; `support.clipped` says what that may cost.
    """
    found = support(log, policy, clip)
    return _told(_parts(log, policy, method, clip), price, found, log, level)


def policy_difference(
    log: Logged,
    candidate: Floats,
    incumbent: Floats,
    price: float,
    *,
    method: Weighing = "dr",
    clip: float = math.inf,
    level: float = 0.95,
) -> PolicyEstimate:
    """How much more the candidate is worth than the incumbent.

    It is paired: where both choose alike, a row says nothing about the difference under `dr`.
    """
    one, other = support(log, candidate, clip), support(log, incumbent, clip)
    worse = Support(
        min(one.effective, other.effective),
        max(one.uncovered, other.uncovered),
        max(one.clipped, other.clipped),
    )
    ours, theirs = _parts(log, candidate, method, clip), _parts(log, incumbent, method, clip)
    parts = _Parts(ours.right.minus(theirs.right), ours.tokens.minus(theirs.tokens))
    return _told(parts, price, worse, log, level)


def _weights(log: Logged, policy: Floats, clip: float) -> Floats:
    rows = np.arange(len(log.rung))
    return np.asarray(np.minimum(policy[rows, log.rung] / log.propensity[rows, log.rung], clip))


def _parts(log: Logged, policy: Floats, method: Weighing, clip: float) -> _Parts:
    weights = _weights(log, policy, clip)
    if method == "snips":
        return _Parts(_self_normalised(log.score, weights), _self_normalised(log.tokens, weights))
    return _Parts(
        _doubly_robust(log.score, weights, log.rung, policy, log.correct),
        _doubly_robust(log.tokens, weights, log.rung, policy, log.expected),
    )


def _self_normalised(outcome: Floats, weights: Floats) -> _Linear:
    known = ~np.isnan(outcome)
    used = np.where(known, weights, 0.0)
    total = float(used.sum())
    if not total:
        return _Linear(math.nan, np.zeros(len(outcome)))
    filled = np.where(known, outcome, 0.0)
    estimate = float((used * filled).sum()) / total
    return _Linear(estimate, used * (filled - estimate) / total)


def _doubly_robust(outcome: Floats, weights: Floats, rung: Ints, policy: Floats, model: Floats) -> _Linear:
    known = ~np.isnan(outcome)
    rows, judged = len(outcome), int(known.sum())
    if not judged:
        return _Linear(math.nan, np.zeros(rows))
    direct = (policy * model).sum(axis=1)
    corrections = np.where(known, weights * (outcome - model[np.arange(rows), rung]), 0.0)
    mean, correction = float(direct.mean()), float(corrections.sum()) / judged
    influence = (direct - mean) / rows + np.where(known, corrections - correction, 0.0) / judged
    return _Linear(mean + correction, influence)


def _told(parts: _Parts, price: float, found: Support, log: Logged, level: float) -> PolicyEstimate:
    value = parts.right.minus(parts.tokens, price / UNIT)
    missing = found.missing is not None

    def told(part: _Linear) -> Estimated:
        if missing:
            return Estimated(part.estimate, math.nan, math.nan)
        return _interval(part, log.conversation, level)

    return PolicyEstimate(told(parts.right), told(parts.tokens), told(value), found)


def _interval(part: _Linear, conversation: Ints, level: float) -> Estimated:
    """By the influences, summed over each conversation."""
    _, place = np.unique(conversation, return_inverse=True)
    sums = np.bincount(place, part.influence)
    if len(sums) < 2:
        return Estimated(part.estimate, math.nan, math.nan)
    squares = sums**2
    variance = float(squares.sum()) * len(sums) / (len(sums) - 1)
    fourth = float((squares**2).sum())
    freedom = max(float(squares.sum()) ** 2 / fourth if fourth else math.inf, _LEAST_FREEDOM)
    half = student_quantile((1 + level) / 2, freedom) * math.sqrt(variance)
    return Estimated(part.estimate, part.estimate - half, part.estimate + half)


def student_quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t, to 0.02 at three degrees of freedom and 97.5 %, and closer above.

    The expansion of Cornish and Fisher: Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5.
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
