"""Asks for the answers of a run in front of a terminal: estimate, confirmation, progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from statistics import fmean

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gateway.cli.terminal import err
from gateway.evidence.measuring.asking import AskingTerms
from gateway.evidence.measuring.forecast import Forecast, forecast_of, seen
from gateway.evidence.measuring.journal import AnswerJournal, MeasuredAnswer
from gateway.evidence.measuring.session import MeasuredModel, collect
from gateway.evidence.measuring.work import AnswerKey

_MUCH_SECONDS, _MUCH_TOKENS = 600, 1_000_000
"""Above one of these a person at a terminal is asked first."""
_BYTES_PER_TOKEN = 4
_SAMPLE = 200  # prompts for which the head is asked what it expects
_LINE_SECONDS = 30.0  # between two lines where there is no terminal


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be asked."""

    model: MeasuredModel
    journal: AnswerJournal | None
    """None on a dry run."""
    keys: Sequence[AnswerKey]
    """The answers that are missing."""
    terms: AskingTerms
    yes: bool
    """Do not ask for confirmation."""


def ask_all(asked: Asked) -> None:
    """Ask for all answers. A few come first, at all rungs: they count, and tell how long the rest takes.

    Raises: RunStopped, KeyboardInterrupt; typer.Exit if it is not confirmed.
    """
    expected = _expected(asked.model)
    if asked.journal is None:
        _say(_forecast(asked, asked.keys, expected), asked, "to ask for")
        return
    keys, journal = list(asked.keys), asked.journal
    trial = min(max(asked.terms.concurrency, 2 * len(asked.model.rungs)), len(keys))
    with asyncio.Runner() as runner:
        if len(journal.answers) < trial < len(keys):
            _say(_forecast(asked, keys, expected), asked, f"expected; {trial} of them are asked for now")
            _ask(runner, asked.model, journal, keys[:trial], asked.terms)
            keys = [key for key in keys[trial:] if key not in journal.answers]
        forecast = _forecast(asked, keys, expected)
        _say(forecast, asked, "left to ask for")
        _confirm(forecast, yes=asked.yes)
        _ask(runner, asked.model, journal, keys, asked.terms)


def _expected(model: MeasuredModel) -> dict[str, float]:
    """Completion tokens of an answer at each rung as the head expects them."""
    predictor, target = model.snapshot.router.predictor, model.target
    predictions = [
        predictor.predict(prompt.text, target.name, target.ladder.lengths).tokens
        for prompt in islice(model.prompts.values(), _SAMPLE)
    ]
    return {name: fmean(each[rung.index] for each in predictions) for name, rung in model.rungs.items()}


def _forecast(asked: Asked, keys: Sequence[AnswerKey], expected: dict[str, float]) -> Forecast:
    answers = list(asked.journal.answers.values()) if asked.journal else []
    known: list[float] = [answer.prompt_tokens for answer in answers if answer.prompt_tokens is not None]
    sizes = known or [len(each.text.encode()) / _BYTES_PER_TOKEN for each in asked.model.prompts.values()]
    return forecast_of(keys, seen(answers, expected), fmean(sizes), asked.terms.concurrency)


def _say(forecast: Forecast, asked: Asked, what: str) -> None:
    time_left = "" if forecast.seconds is None else f", about {_duration(forecast.seconds)}"
    model = asked.model
    err.print(
        f"{model.target.name} at {', '.join(model.rungs)}: {forecast.requests:,} answers {what},"
        f" about {forecast.tokens:,.0f} completion tokens and {forecast.prompt_tokens:,.0f} of prompts"
        f"{time_left}, {asked.terms.concurrency} at a time",
        soft_wrap=True,
        highlight=False,
    )


def _confirm(forecast: Forecast, *, yes: bool) -> None:
    much = forecast.tokens > _MUCH_TOKENS or (forecast.seconds or 0) > _MUCH_SECONDS
    if much and not yes and err.is_terminal and not typer.confirm("Go on?", err=True):
        err.print("The answers so far are kept.")
        raise typer.Exit(1)


def _ask(
    runner: asyncio.Runner,
    model: MeasuredModel,
    journal: AnswerJournal,
    keys: Sequence[AnswerKey],
    terms: AskingTerms,
) -> None:
    if keys:
        with _progress(len(keys)) as took:
            runner.run(collect(model, journal, keys, terms, took))


@contextmanager
def _progress(count: int) -> Iterator[Callable[[MeasuredAnswer], None]]:
    """Shows the answers as they come: a bar on a terminal, a line now and then elsewhere."""
    columns = (
        TextColumn("asking"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield _Teller(bar, bar.add_task("asking", total=count, rate=""), count).took


class _Teller:
    """Tells how far a run is."""

    def __init__(self, bar: Progress, task: TaskID, count: int) -> None:
        self._bar, self._task, self._count = bar, task, count
        self._done = self._errors = self._tokens = 0
        self._began = self._said = time.monotonic()

    def took(self, answer: MeasuredAnswer) -> None:
        now = time.monotonic()
        self._done += 1
        self._errors += answer.error is not None
        self._tokens += answer.tokens or 0
        self._bar.update(self._task, advance=1, rate=self._rate(now))
        if not err.is_terminal and now - self._said > _LINE_SECONDS:
            self._said = now
            left = (now - self._began) / self._done * (self._count - self._done)
            err.print(
                f"{self._done:,} of {self._count:,} answers, {self._rate(now)}, {_duration(left)} left",
                highlight=False,
            )

    def _rate(self, now: float) -> str:
        seconds = max(now - self._began, 1e-3)
        lost = f", {self._errors:,} failed" if self._errors else ""
        return (
            f"{self._done / seconds:.1f} answers/s, {self._tokens / seconds:,.0f} tokens/s,"
            f" {self._tokens:,} tokens{lost}"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
