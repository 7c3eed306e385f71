"""Sums over the rows of the store, from which its readers say how good answers are. No I/O."""

from __future__ import annotations

from msgspec import Struct


class SummaryCell(Struct, frozen=True):
    """Sums over the decisions of one model, arm and rung."""

    model: str
    arm: str
    rung: int
    tier: str
    """The name of the tier that the rung belongs to."""
    requests: int
    failed: int
    """Status 400 and above."""
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    answered: int
    """Requests whose completion tokens are known."""
    token_squares: float
    """The sum of the squares of their completion tokens, for an interval."""
    expected_tokens: float
    """What the head expected of all these requests together."""
    expected_right: float
    """The sum of the head's P(right)."""
    rated: int
    """Decisions with feedback. Of several sources the mean counts."""
    right: float
    """The sum of the scores of the rated."""
    right_squares: float
    """The sum of their squares, for an interval."""
    rated_expected_right: float
    """The sum of P(right) over the rated, to compare with `right`."""
    rated_tokens: int
    """Completion tokens of the rated."""


class CalibrationCell(Struct, frozen=True):
    """Sums over the judged answers of a model for which the head expected about the same."""

    model: str
    tenth: int
    """Of P(right), from 0 to 9."""
    rated: int
    expected: float
    """The sum of P(right)."""
    right: float
    """The sum of the scores."""


class PairCell(Struct, frozen=True):
    """The shadow pairs of two rungs of a model."""

    model: str
    served_rung: int
    shadow_rung: int
    served: int
    """Pairs where the answer that the client got was better."""
    ties: int
    shadow: int
    ungraded: int
    flips: int
    """Pairs where the judge changed its mind with the order."""
    served_tokens: int
    """Completion tokens of the pairs where both are known."""
    shadow_tokens: int


class JudgedAnswer(Struct, frozen=True):
    """What somebody said about an answer, without the comment."""

    at: float
    model: str | None
    """None if the decision is gone."""
    tier: str | None
    arm: str | None
    source: str
    score: float
