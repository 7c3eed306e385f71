"""How many requests, tokens and minutes a run will take, before and while it runs. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from gateway.evidence.measuring.journal import MeasuredAnswer
from gateway.evidence.measuring.work import AnswerKey


class Forecast(NamedTuple):
    """What is left to do."""

    requests: int
    tokens: float
    """Completion tokens."""
    prompt_tokens: float
    seconds: float | None
    """None before any answer has come."""


class RungForecast(NamedTuple):
    """What one answer at a rung takes."""

    tokens: float
    seconds: float | None = None


def forecast_of(
    left: Iterable[AnswerKey],
    each: Mapping[str, RungForecast],
    prompt_tokens: float,
    concurrency: int,
) -> Forecast:
    """Sum up what is left. each: by rung. prompt_tokens: of one request.

    With a constant number of requests at a time, the time is the sum of theirs divided by that number.
    """
    counts: dict[str, int] = defaultdict(int)
    for key in left:
        counts[key.rung] += 1
    requests = sum(counts.values())
    tokens = sum(count * each[rung].tokens for rung, count in counts.items())
    times = [(count, each[rung].seconds) for rung, count in counts.items()]
    seconds = None
    if all(time is not None for _, time in times):
        seconds = sum(count * (time or 0.0) for count, time in times) / max(min(concurrency, requests), 1)
    return Forecast(requests, tokens, requests * prompt_tokens, seconds)


def seen(
    answers: Iterable[MeasuredAnswer], expected: Mapping[str, float], recent: int = 2000
) -> dict[str, RungForecast]:
    """What answers at each rung take, as seen, or as the head expects where none has come.

    A rung without an answer is taken to be as fast as the others, token for token.
    """
    by_rung: dict[str, list[MeasuredAnswer]] = defaultdict(list)
    for answer in answers:
        if answer.tokens is not None:
            by_rung[answer.rung].append(answer)
    pace = _pace([answer for each in by_rung.values() for answer in each[-recent:]])
    found = {}
    for rung, tokens in expected.items():
        latest = by_rung[rung][-recent:]
        if latest:
            found[rung] = RungForecast(fmean(a.tokens or 0 for a in latest), fmean(a.seconds for a in latest))
        else:
            found[rung] = RungForecast(tokens, None if pace is None else tokens * pace)
    return found


def _pace(answers: Sequence[MeasuredAnswer]) -> float | None:
    """Seconds per token of one answer."""
    tokens = sum(answer.tokens or 0 for answer in answers)
    return sum(answer.seconds for answer in answers) / tokens if tokens else None
