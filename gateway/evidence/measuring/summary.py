"""What a run has shown: by rung, between rungs, what a router could gain, what is missing. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from msgspec import Struct

from gateway.evidence.measuring.ceiling import Ceiling, CurvePoint, ceiling_of, cheapest, height
from gateway.evidence.measuring.intervals import Estimate, average, paired, prompts_needed, share
from gateway.evidence.measuring.journal import GivenGrade, MeasuredAnswer
from gateway.evidence.measuring.outcomes import MeasuredOutcomes
from gateway.evidence.measuring.position_bias import PositionBias, position_bias
from gateway.evidence.measuring.work import MeasuredRung
from gateway.openai_api.usage import SLACK

_FEWEST = 20
"""Prompts below which nothing is said about a router."""


class RungSummary(Struct, frozen=True):
    """What one rung does."""

    name: str
    thinking: int
    right: Estimate
    tokens: Estimate
    cut: int
    """Answers that ended at their length limit."""
    silent: int
    """Answers without any visible text."""
    over: int
    """Answers whose thought is longer than the thinking budget."""
    against: Estimate | None
    """Right answers less those of the longest rung, of the same prompts; None for the longest itself."""
    saved: Estimate | None
    """Tokens less than at the longest rung, of the same prompts."""
    needed: int | None
    """Prompts that would show a difference of interest against the longest rung."""


class RouterSummary(Struct, frozen=True):
    """What a router could gain at most over fixed rungs, at the tokens of the best fixed mixture."""

    prompts: int
    """Prompts that have all outcomes."""
    ceiling: Ceiling
    tokens: float
    """Where the gain is largest, in mean tokens."""
    fixed: float
    """Right answers of fixed rungs there."""
    highest: float
    lowest: float | None
    """None with one sample of each answer."""
    best: float
    """Right answers of the best fixed rung."""
    best_tokens: float
    fewest: float | None
    """The fewest tokens for as many right answers, luck included."""
    fewest_sure: float | None
    """The same without luck; None if it is unknown, or if so many are not reached."""


class HeadSummary(Struct, frozen=True):
    """What a head has learnt from the outcomes, on prompts that it did not learn from."""

    sentences: tuple[str, ...]
    curve: tuple[CurvePoint, ...] = ()
    """What its choices reach, cheapest first; empty if that was not found out."""


class RunSummary(Struct, frozen=True):
    """Everything on the page."""

    model: str
    grader: str
    prompts: int
    samples: int
    answers: int
    tokens: int
    rungs: tuple[RungSummary, ...]
    router: RouterSummary | None
    """None for one rung, and below 20 prompts."""
    difference: float
    """The difference of interest, in the share of right answers."""
    failed: tuple[tuple[str, int, str], ...]
    """(why there is no answer, how many, an example's prompt), the most frequent first."""
    ungraded: tuple[tuple[str, int, str], ...]
    """(why there is no grade, how many, an example's prompt)."""
    uncounted: int
    """Answers that were graded, but whose tokens the backend did not count."""
    unbudgeted: int
    """Answers of backends that refuse thinking budgets."""
    missing: int
    """Answers that have not been asked for yet."""
    head: HeadSummary | None = None
    """None if no head was calibrated."""
    bias: PositionBias | None = None
    """None unless a judge compared answers."""


def summarise_run(
    outcomes: MeasuredOutcomes,
    answers: Sequence[MeasuredAnswer],
    failed: Iterable[MeasuredAnswer],
    grades: Iterable[GivenGrade],
    *,
    model: str,
    grader: str,
    difference: float,
    missing: int = 0,
    head: HeadSummary | None = None,
) -> RunSummary:
    """Sum up the answers of a run and their grades by one grader."""
    grades = list(grades)
    counted = {answer.key for answer in answers if answer.tokens is not None}
    ungraded = [(each.note or "no reason given", each.prompt) for each in grades if each.score is None]
    return RunSummary(
        model,
        grader,
        len(outcomes.prompts),
        outcomes.samples,
        len(answers),
        sum(answer.tokens or 0 for answer in answers),
        tuple(_rungs(outcomes, answers, difference)),
        _router(outcomes.complete),
        difference,
        _reasons((each.error or "", each.prompt) for each in failed),
        _reasons(ungraded),
        len(answers) - len(counted),
        sum(not answer.budget_sent for answer in answers),
        missing,
        head,
        position_bias(grades),
    )


def _rungs(
    outcomes: MeasuredOutcomes, answers: Sequence[MeasuredAnswer], difference: float
) -> Iterator[RungSummary]:
    longest, longest_tokens = outcomes.of_rung(len(outcomes.rungs) - 1)
    for at, rung in enumerate(outcomes.rungs):
        right, tokens = outcomes.of_rung(at)
        known = ~np.isnan(right)
        both = known & ~np.isnan(longest)
        last = at == len(outcomes.rungs) - 1
        own = [answer for answer in answers if answer.rung == rung.name]
        yield RungSummary(
            rung.name,
            rung.thinking,
            share(right[known], outcomes.samples),
            average(tokens[known]),
            sum(answer.finish == "length" for answer in own),
            sum(not answer.text.strip() for answer in own),
            sum(_over(answer, rung) for answer in own),
            None if last else paired(right[both], longest[both]),
            None if last else average(longest_tokens[both] - tokens[both]),
            None if last else prompts_needed(difference, right[both], longest[both]),
        )


def _over(answer: MeasuredAnswer, rung: MeasuredRung) -> bool:
    return (answer.reasoning or 0) > rung.thinking + SLACK


def _router(outcomes: MeasuredOutcomes) -> RouterSummary | None:
    if len(outcomes.rungs) < 2 or len(outcomes.prompts) < _FEWEST:
        return None
    ceiling = ceiling_of(outcomes.correct, outcomes.tokens)
    corners = sorted({point.tokens for curve in (ceiling.fixed, ceiling.highest) for point in curve})
    inside = [each for each in corners if each >= ceiling.fixed[0].tokens] or [ceiling.fixed[0].tokens]
    sure = ceiling.lowest or ceiling.highest
    at = max(inside, key=lambda tokens: height(sure, tokens) - height(ceiling.fixed, tokens))
    best = ceiling.fixed[-1]
    return RouterSummary(
        len(outcomes.prompts),
        ceiling,
        at,
        height(ceiling.fixed, at),
        height(ceiling.highest, at),
        height(ceiling.lowest, at) if ceiling.lowest else None,
        best.accuracy,
        best.tokens,
        cheapest(ceiling.highest, best.accuracy),
        cheapest(ceiling.lowest, best.accuracy),
    )


def _reasons(found: Iterable[tuple[str, str]]) -> tuple[tuple[str, int, str], ...]:
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for reason, prompt in found:
        counts[reason] += 1
        example.setdefault(reason, prompt)
    return tuple((reason, count, example[reason]) for reason, count in counts.most_common(10))
