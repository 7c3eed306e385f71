"""What the rows of the store say about the quality of answers, for people to see. No I/O."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import NormalDist

from msgspec import Struct

from gateway.evidence.measuring.intervals import newcombe, wilson
from gateway.evidence.quality_cells import CalibrationCell, JudgedAnswer, PairCell, SummaryCell

OF_INTEREST = 0.02
"""Half the width of an interval that is narrow enough to decide on."""
ADAPTIVE, HOLDOUT = "adaptive", "holdout"
_Z = NormalDist().inv_cdf(0.975)


class Bounded(Struct, frozen=True):
    """An estimate with its 95 % interval."""

    mean: float
    low: float
    high: float


class Group(Struct, frozen=True):
    """Requests of one arm, of all rungs or of one."""

    arm: str
    tier: str | None
    rung: int | None
    requests: int
    rated: int
    """Answers with feedback."""
    right: Bounded | None
    """Share of the rated that was right; None if none is rated."""
    expected: float | None
    """The head's P(right) of the rated, on average."""
    tokens: float | None
    """Completion tokens per answer."""


class ArmComparison(Struct, frozen=True):
    """The adaptive arm minus the hold-out."""

    right: Bounded
    missing: int
    """Judged answers of the hold-out that are missing until the interval is ± OF_INTEREST wide."""
    saved: Bounded | None
    """Share of completion tokens that an adaptive answer needs less."""


class Calibration(Struct, frozen=True):
    """Answers for which the head expected about the same."""

    expected: float
    right: Bounded
    rated: int


class ModelQuality(Struct, frozen=True):
    """What is known about the answers of one model."""

    model: str
    arms: list[Group]
    rungs: list[Group]
    comparison: ArmComparison | None
    """None without judged answers in both arms."""
    calibration: list[Calibration]
    pairs: list[PairCell]


class Quality(Struct, frozen=True):
    """What is known of all models."""

    models: list[ModelQuality]
    feedback: list[JudgedAnswer]


def quality_of(
    cells: Sequence[SummaryCell],
    calibration: Sequence[CalibrationCell],
    pairs: Sequence[PairCell],
    feedback: Sequence[JudgedAnswer],
) -> Quality:
    """Put sums over rows together, by model in alphabetic order."""
    names = {cell.model for cell in cells} | {pair.model for pair in pairs}
    models = [
        _model(
            name,
            [cell for cell in cells if cell.model == name],
            [cell for cell in calibration if cell.model == name],
            [pair for pair in pairs if pair.model == name],
        )
        for name in sorted(names)
    ]
    return Quality(models, list(feedback))


def _model(
    name: str,
    cells: Sequence[SummaryCell],
    calibration: Sequence[CalibrationCell],
    pairs: Sequence[PairCell],
) -> ModelQuality:
    arms: dict[str, list[SummaryCell]] = defaultdict(list)
    for cell in cells:
        arms[cell.arm].append(cell)
    return ModelQuality(
        name,
        [_group(arm, found) for arm, found in sorted(arms.items(), key=lambda item: item[0] or "")],
        [_group(cell.arm, [cell], cell.tier, cell.rung) for cell in cells],
        _comparison(arms[ADAPTIVE], arms[HOLDOUT]),
        [_calibration(cell) for cell in calibration if cell.rated],
        list(pairs),
    )


def _group(arm: str, cells: Sequence[SummaryCell], tier: str | None = None, rung: int | None = None) -> Group:
    total = _total(cells)
    rated = int(total(lambda cell: cell.rated))
    answered = total(lambda cell: cell.answered)
    return Group(
        *(arm, tier, rung),
        requests=int(total(lambda cell: cell.requests)),
        rated=rated,
        right=_share(total(lambda cell: cell.right), rated) if rated else None,
        expected=total(lambda cell: cell.rated_expected_right) / rated if rated else None,
        tokens=total(lambda cell: cell.completion_tokens) / answered if answered else None,
    )


def _total(cells: Sequence[SummaryCell]) -> Callable[[Callable[[SummaryCell], float]], float]:
    return lambda value: sum(map(value, cells))


def _share(right: float, rated: int) -> Bounded:
    mean = right / rated
    return Bounded(mean, *wilson(min(max(mean, 0.0), 1.0), rated))


def _calibration(cell: CalibrationCell) -> Calibration:
    return Calibration(cell.expected / cell.rated, _share(cell.right, cell.rated), cell.rated)


def _comparison(adaptive: Sequence[SummaryCell], holdout: Sequence[SummaryCell]) -> ArmComparison | None:
    """The difference of the arms' shares, as independent of each other."""
    ours, theirs = _group(ADAPTIVE, adaptive), _group(HOLDOUT, holdout)
    if ours.right is None or theirs.right is None:
        return None
    a, b = ours.right, theirs.right
    difference = Bounded(*newcombe((a.mean, a.low, a.high), (b.mean, b.low, b.high)))
    missing = max(0, _needed(a.mean, ours.rated, b.mean) - theirs.rated)
    return ArmComparison(difference, missing, _saved(adaptive, holdout))


def _needed(adaptive: float, rated: int, holdout: float) -> int:
    """Judged answers of the hold-out for an interval of ± OF_INTEREST, if the adaptive arm keeps its share.

    The variances of the two shares add up. The adaptive arm grows along where it alone is too small. A share
    near 0 or 1 may be so by chance, so that its variance counts as that of 5 % at least.
    """
    room = (OF_INTEREST / _Z) ** 2
    own, other = _variance(adaptive), _variance(holdout)
    left = room - own / rated
    return math.ceil(other / left) if left > room / 2 else math.ceil(2 * other / room)


def _variance(share: float) -> float:
    return max(share * (1 - share), 0.05 * 0.95)


def _saved(adaptive: Sequence[SummaryCell], holdout: Sequence[SummaryCell]) -> Bounded | None:
    """One minus the ratio of two means, with the interval of its logarithm (delta method)."""
    ours, theirs = _tokens(adaptive), _tokens(holdout)
    if ours is None or theirs is None:
        return None
    (mean, variance), (other, other_variance) = ours, theirs
    ratio = math.log(mean / other)
    half = _Z * math.sqrt(variance / mean**2 + other_variance / other**2)
    return Bounded(*(1 - math.exp(end) for end in (ratio, ratio + half, ratio - half)))


def _tokens(cells: Sequence[SummaryCell]) -> tuple[float, float] | None:
    """Completion tokens per answer, and the variance of that mean."""
    total = _total(cells)
    count = total(lambda cell: cell.answered)
    mean = total(lambda cell: cell.completion_tokens) / count if count else 0.0
    if count < 2 or not mean:
        return None
    variance = max(0.0, total(lambda cell: cell.token_squares) / count - mean**2) * count / (count - 1)
    return mean, variance / count
