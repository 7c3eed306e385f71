"""Tests by betting, which may be looked at after every answer without more false alarms. No I/O.

The hypothesis is that a bounded quantity x has, given the past, a mean of at least 0. Somebody bets against
it: capital K starts at 1 and is multiplied by 1 − λ·x, where λ ≥ 0 is set before x is seen and 1 − λ·x ≥ 0.
If the hypothesis holds, K is a supermartingale, so that it ever reaches 1/α with probability α at most
(Ville). That is an e-process: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables
by betting", JRSS B 2024, sections 3 and 4.

A change may come at any time, when an old bet has lost its capital. So fresh bets start every week: a sum
over starting times as the e-detector of J. Shin, A. Ramdas and A. Rinaldo, "E-detectors", NEJSDS 2023. Here
the fresh bets are paid by a share of the old ones, so that the expected sum stays at most 1 however long it
runs, while the hypothesis holds. Within a quarter at most 1 comes in anew, so that the sum reaches c in a
quarter with probability 2/c at most. Bets at the same λ move alike, so that one number per λ holds them
all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

PRIOR_WEIGHT = 20.0
"""Observations that the first guess of the spread counts as."""


class Aim(Struct, frozen=True):
    """A mean below 0 that a bet is made for, and the share of the fund that goes on it."""

    below: float
    share: float


class Bets(Struct):
    """The capital of the bets against one hypothesis."""

    aims: tuple[Aim, ...]
    highest: float
    """x is never above."""
    stakes: list[float]
    """The capital by aim."""
    squares: float
    """Of x, their sum, with `PRIOR_WEIGHT` observations of the first guess."""
    seen: int = 0

    @classmethod
    def against(cls, aims: Sequence[Aim], highest: float, spread: float, capital: float = 1.0) -> Bets:
        """The first bets. The shares of the aims add up to 1.

        spread: a guess of the standard deviation of x.
        """
        return cls(
            tuple(aims), highest, [capital * aim.share for aim in aims], PRIOR_WEIGHT * spread * spread
        )

    def renew(self, share: float) -> None:
        """Put this share of 1 on fresh bets, and take the same share of the old ones away."""
        for i, aim in enumerate(self.aims):
            self.stakes[i] = (1 - share) * self.stakes[i] + share * aim.share

    def see(self, x: float, mean_square: float | None = None) -> None:
        """Settle the bets on one observation.

        λ is the bet that grows fastest if the mean is −a, to the second order: a / E x². It never stakes more
        than nine tenths of the capital.

        mean_square: E x² as known before x is; default: that of what was seen before.
        """
        if mean_square is None:
            mean_square = self.squares / (PRIOR_WEIGHT + self.seen)
        x = min(x, self.highest)
        for i, aim in enumerate(self.aims):
            self.stakes[i] *= 1.0 - min(aim.below / mean_square, 0.9 / self.highest) * x
        self.squares += x * x
        self.seen += 1

    @property
    def capital(self) -> float:
        """The evidence against the hypothesis. At most 1 on average if it holds."""
        return sum(self.stakes)


def log_evidence(capital: float) -> float:
    """The natural logarithm of an e-value, for people and plots."""
    return math.log(max(capital, 1e-300))
