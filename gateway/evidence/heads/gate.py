"""Whether a candidate may take the place of the head that decides. No I/O."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from msgspec import Struct

from gateway.evidence.rows import HeadRow

VALUE_MARGIN = 0.005
"""By how much the value may be lower at worst: half a right answer in a hundred. Two equal heads differ by
chance, so that without a margin no amount of evidence would show that one is not worse."""
CALIBRATION = 0.05
"""How far the mean P(right) may be from the share of right answers, beyond what chance explains."""


class Range(Protocol):
    """An estimate with its 95 % interval. Any type with these attributes will do."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Difference(Struct, frozen=True):
    """An estimate with its 95 % interval."""

    mean: float
    low: float
    high: float


class HeadComparison(Struct, frozen=True):
    """A candidate less the incumbent, on evidence that neither was trained on. Paired by request."""

    value: Range
    """Right answers less price × tokens / 1,000, per request."""
    correct: Range
    """Right answers per request."""
    tokens: Range
    """Completion tokens per request."""
    calibration: Range
    """The candidate's mean P(right) less the share of right answers, both at the rungs that were served."""
    answers: int
    """Graded answers that it rests on."""


class GateVerdict(Struct, frozen=True):
    """What the gate says. It is kept beside the head."""

    passes: bool
    reasons: tuple[str, ...]
    """What speaks against it, or for it, a phrase each."""
    answers: int
    value: Difference
    correct: Difference
    tokens: Difference
    calibration: Difference

    def plain(self) -> dict[str, Any]:
        """As it is kept."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def judged(comparison: HeadComparison) -> GateVerdict:
    """Not worse in value, better in right answers or in tokens, and calibrated; each at 95 %."""
    value, correct, tokens = comparison.value, comparison.correct, comparison.tokens
    calibration = comparison.calibration
    against = []
    if not value.low >= -VALUE_MARGIN:
        worse = "worse" if value.high < -VALUE_MARGIN else "perhaps worse"
        against.append(f"{worse} in value: {_shown(value)} per request")
    better = [
        name for name, is_so in (("right answers", correct.low > 0), ("tokens", tokens.high < 0)) if is_so
    ]
    if not better:
        against.append("better neither in right answers nor in tokens, at 95 %")
    if not (calibration.low <= CALIBRATION and calibration.high >= -CALIBRATION):
        against.append(f"not calibrated: P(right) is off by {_shown(calibration)}")
    reasons = against or [f"not worse in value, better in {' and '.join(better)}, calibrated"]
    kept = [_kept(each) for each in (value, correct, tokens, calibration)]
    return GateVerdict(not against, tuple(reasons), comparison.answers, *kept)


def objection(row: HeadRow) -> str | None:
    """Why a head must not be promoted without `anyway`; None if it may."""
    if row.verdict is None:
        return "nobody has compared it with the head that decides"
    if not row.verdict.get("passes"):
        return "; ".join(row.verdict.get("reasons", ())) or "the gate has refused it"
    return None


def _kept(found: Range) -> Difference:
    return Difference(found.mean, found.low, found.high)


def _shown(found: Range) -> str:
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
