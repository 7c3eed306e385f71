"""Follows what the head said and what came of it, and tells where the two no longer agree. No I/O.

All that is known follows from the rows in order of time, so nothing of it is stored: a gateway that starts
reads the judgments of the last quarter, and all gateways of one store come to the same alarms about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from gateway.evidence.drift.betting import Aim, Bets, log_evidence

DriftKind = Literal["right", "tokens", "pairs", "abstained"]
"""What is watched: right answers and completion tokens against the head's estimates; and against their own
past the shadow pairs that the served answer lost, and the prompts unlike the head's training data."""

QUARTER = 91 * 86_400.0
WEEK = QUARTER / 13
FALL = 0.10
"""The fall of P(right) that bets are made for."""
PAST = {"abstained": 500, "pairs": 200}
"""The first decisions of a model, or pairs of a tier, that the share of later ones is compared with."""
RIGHT_LIMIT = 2.2
"""Evidence per stream of right answers at which one is an alarm: chosen by simulation, see docs/drift.md."""
OTHER_LIMIT = 2_000.0
"""Of the other streams. They see every decision, so that they need not be quick."""
RECOVERED = 20.0
"""Evidence against a fall of half of FALL at which an alarm is lifted."""
PATIENCE = 14 * 86_400.0
"""Seconds without a graded answer after which an alarm is lifted: nothing speaks for it any more."""
_TOKENS_OFF, _RATIO = 0.25, 4.0
_SHARE_OFF = 0.10
_MOST_STREAMS = 1_024
_FIRST = 1 / 13
_RECOVERY_ANSWERS = 50
"""After which the bets that a fall is over are renewed: in a long fall they lose all that they had."""
_LEAST_VARIANCE = 0.08
"""Of a score, so that answers which the head is very sure of do not decide alone."""
PRIOR_SUFFIX = "/prior"
"""Of the head in places where the estimates came from the prior, which is right or wrong by itself."""


class Seen(Struct, frozen=True):
    """A row that the watch follows."""

    at: float
    model: str
    tier: str
    head: str
    prior: bool
    """The estimates came from the prior."""
    score: float | None = None
    """Of a graded answer; None for a decision."""
    correct: float = 0.0
    """The head's P(right)."""
    expected: float = 0.0
    """Completion tokens that it expected."""
    tokens: int | None = None
    abstained: bool | None = None
    """None if the head did not choose."""
    lost: bool | None = None
    """The shadow answer was better than the served one; None for a decision."""


class DriftPlace(Struct, frozen=True):
    """What one stream of evidence is about."""

    model: str
    tier: str
    """Empty for what is watched by model."""
    head: str
    kind: DriftKind


class Stream:
    """The bets on one place, and whether they have raised an alarm."""

    def __init__(self, sides: list[Bets], at: float) -> None:
        self.sides = sides
        self.renewed = at
        self.last = at
        self.since: float | None = None
        """When the alarm was raised; None without one."""
        self.recovery: Bets | None = None

    def see(self, at: float, values: list[float], mean_square: float | None = None) -> None:
        """Settle the bets of every side on its value. mean_square: of the values, if it is known before."""
        while at - self.renewed >= WEEK:
            self.renewed += WEEK
            for bets in self.sides:
                bets.renew(_FIRST)
        self.last = max(self.last, at)
        for bets, value in zip(self.sides, values, strict=True):
            bets.see(value, mean_square)

    @property
    def evidence(self) -> float:
        """The mean over the sides, which is an e-value too."""
        return sum(bets.capital for bets in self.sides) / len(self.sides)


class DriftFound(Struct, frozen=True):
    """The state of one stream, for people and metrics."""

    place: DriftPlace
    seen: int
    evidence: float
    """Natural logarithm."""
    limit: float
    """Of `evidence`, at which there is an alarm."""
    since: float | None
    """Unix time of the alarm; None without one."""


class Watch:
    """All streams. Rows come in order of time."""

    def __init__(self, tolerance: float) -> None:
        """tolerance: how far below P(right) the share of right answers may be."""
        self._tolerance = tolerance
        self._streams: dict[DriftPlace, Stream] = {}
        self._past: dict[DriftPlace, list[int]] = {}
        self._right = 0

    def see(self, row: Seen) -> None:
        """Take in one row."""
        head = row.head + PRIOR_SUFFIX if row.prior else row.head
        if row.score is not None:
            self._graded(DriftPlace(row.model, row.tier, head, "right"), row.at, row.score, row.correct)
            return
        if row.tokens is not None and row.expected > 0:
            ratio = min(row.tokens / row.expected, _RATIO)
            self._follow(
                DriftPlace(row.model, row.tier, head, "tokens"),
                row.at,
                [1 + _TOKENS_OFF - ratio, ratio - (1 - _TOKENS_OFF)],
                [1 + _TOKENS_OFF, _RATIO],
            )
        if row.abstained is not None:
            self._share(DriftPlace(row.model, "", row.head, "abstained"), row.at, true=row.abstained)
        if row.lost is not None:
            self._share(DriftPlace(row.model, row.tier, head, "pairs"), row.at, true=row.lost)

    def tell(self, now: float) -> Iterator[DriftFound]:
        """The state of every stream that saw a row in the last quarter.

        Lifts the alarms that nothing has spoken for in a long time.
        """
        for place, known in list(self._streams.items()):
            stream = known
            if now - stream.last > QUARTER:
                self._forget(place)
                continue
            if stream.since is not None and now - max(stream.last, stream.since) > PATIENCE:
                stream = self._lift(place, stream, now)
            seen = stream.sides[0].seen
            limit = log_evidence(self._limit(place))
            yield DriftFound(place, seen, log_evidence(stream.evidence), limit, stream.since)

    def _graded(self, place: DriftPlace, at: float, score: float, correct: float) -> None:
        """One graded answer. correct: the head's P(right), which tells how far a single score may be off."""
        difference = score - correct
        mean_square = max(correct * (1 - correct), _LEAST_VARIANCE) + FALL**2
        stream = self._streams.get(place)
        if stream is not None and stream.since is not None and at - stream.last > PATIENCE:
            stream = self._lift(place, stream, at)
        if stream is None or stream.since is None:
            self._follow(place, at, [difference + self._tolerance], [1 + self._tolerance], mean_square)
            return
        if stream.recovery is None:
            half = FALL / 2
            stream.recovery = Bets.against([Aim(half, 0.7), Aim(2 * half, 0.3)], 1.0, 0.35)
        stream.see(at, [difference + self._tolerance], mean_square)
        if stream.recovery.seen % _RECOVERY_ANSWERS == 0:
            stream.recovery.renew(_FIRST)
        stream.recovery.see(-(difference + FALL / 2), mean_square)
        if stream.recovery.capital >= RECOVERED:
            self._lift(place, stream, at)

    def _follow(
        self,
        place: DriftPlace,
        at: float,
        values: list[float],
        highest: list[float],
        mean_square: float | None = None,
    ) -> None:
        stream = self._streams.get(place)
        if stream is None:
            if len(self._streams) >= _MOST_STREAMS:
                return
            stream = self._streams[place] = self._opened(place, at, highest)
        stream.see(at, values, mean_square)
        if stream.since is None and stream.evidence >= self._limit(place):
            stream.since = at

    def _opened(self, place: DriftPlace, at: float, highest: list[float]) -> Stream:
        self._right += place.kind == "right"
        aims = {
            "right": [Aim(FALL - self._tolerance, 0.7), Aim(2 * FALL - self._tolerance, 0.3)],
            "tokens": [Aim(0.1, 0.5), Aim(0.3, 0.5)],
        }.get(place.kind, [Aim(0.05, 0.5), Aim(0.2, 0.5)])
        spread = 1.0 if place.kind == "tokens" else 0.35
        return Stream([Bets.against(aims, most, spread, _FIRST) for most in highest], at)

    def _share(self, place: DriftPlace, at: float, *, true: bool) -> None:
        """The first rows are the past; each later one is held against their share."""
        past = self._past.get(place)
        if past is None:
            if len(self._past) >= _MOST_STREAMS:
                return
            past = self._past[place] = [0, 0]
        if past[0] < PAST[place.kind]:
            past[0] += 1
            past[1] += true
            return
        above = true - past[1] / past[0]
        self._follow(place, at, [_SHARE_OFF - above, above + _SHARE_OFF], [1 + _SHARE_OFF, 1 + _SHARE_OFF])

    def _limit(self, place: DriftPlace) -> float:
        streams = max(4, self._right)
        return RIGHT_LIMIT * streams if place.kind == "right" else OTHER_LIMIT * streams

    def _lift(self, place: DriftPlace, stream: Stream, at: float) -> Stream:
        """End an alarm, and bet afresh."""
        self._forget(place)
        fresh = self._streams[place] = self._opened(place, at, [bets.highest for bets in stream.sides])
        return fresh

    def _forget(self, place: DriftPlace) -> None:
        """Drop the stream of a place, with the past that it was held against."""
        del self._streams[place]
        self._right -= place.kind == "right"
        self._past.pop(place, None)
