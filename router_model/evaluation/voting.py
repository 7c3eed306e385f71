"""Self-consistency: ask one tier several times and take the most frequent answer (Wang et al., 2023).

Adaptive consistency stops asking once the majority is settled (Aggarwal et al., 2023).
"""

from __future__ import annotations

import gzip
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from router_model.arrays import Floats
from router_model.training.outcomes import OutcomeTable

SURE = (0.85, 0.95, 1.0)
"""Probabilities at which adaptive consistency stops; at 1 only when nothing can change any more."""


class _Cell(msgspec.Struct):
    answers: list[str] = []
    right: list[bool | Annotated[int, msgspec.Meta(ge=0, le=1)]] = []
    tokens: float = 0.0


class _Row(msgspec.Struct):
    id: str
    tiers: dict[str, _Cell]


@dataclass(frozen=True, slots=True)
class Option:
    """A fixed way to answer: expected correctness and tokens of each prompt, [N]."""

    name: str
    correct: Floats
    tokens: Floats


Votes = tuple[tuple[int, bool], ...]
"""The samples of one cell: a number for each different answer, -1 for none, and whether it is right."""


def votes_of(answers: Sequence[str], right: Sequence[bool | int]) -> Votes:
    """The samples of one cell, with answers numbered in the order in which they first appear."""
    numbers: dict[str, int] = {}
    return tuple(
        (numbers.setdefault(answer, len(numbers)) if answer else -1, bool(good))
        for answer, good in zip(answers, right, strict=True)
    )


@cache
def majority(samples: Votes, votes: int) -> float:
    """P(right) of the most frequent of `votes` answers, over all choices of samples; random among ties.

    An empty answer is no vote. Without any vote the result is wrong.
    """
    chosen = list(combinations(samples, votes))
    return sum(map(_elected, chosen)) / len(chosen)


@cache
def adaptive(samples: Votes, votes: int, sure: float) -> tuple[float, float]:
    """P(right) and expected number of votes if voting stops as soon as the majority is settled.

    At most `votes` samples are drawn, in random order. Voting stops when the runner-up cannot catch up any
    more, or when the leader is the true majority with probability `sure` (Aggarwal et al., 2023, §3: the
    Beta posterior of the two most frequent answers).
    """
    right, spent = 0.0, 0
    orders = list(permutations(samples, votes))
    for order in orders:
        asked = next(used for used in range(1, votes + 1) if _settled(order[:used], votes, sure))
        right += _elected(order[:asked])
        spent += asked
    return right / len(orders), spent / len(orders)


def _elected(cast: Votes) -> float:
    """P(right) of the most frequent of these answers."""
    count = Counter(answer for answer, _ in cast if answer >= 0)
    most = max(count.values(), default=0)
    leaders = {answer for answer, times in count.items() if times == most}
    won = {answer for answer, good in cast if good} & leaders
    return len(won) / len(leaders) if leaders else 0.0


def _settled(cast: Votes, votes: int, sure: float) -> bool:
    count = Counter(answer for answer, _ in cast if answer >= 0)
    first, second = ([*sorted(count.values(), reverse=True), 0, 0])[:2]
    left = votes - len(cast)
    return left == 0 or first - second > left or leads(first, second) >= sure


def leads(first: int, second: int) -> float:
    """P(the leader is more frequent than the runner-up), after so many votes for each.

    The posterior Beta(first + 1, second + 1) above 1/2, which is a binomial sum for whole numbers.
    """
    tosses = first + second + 1
    below: int = sum(math.comb(tosses, heads) for heads in range(first + 1))
    return below / float(1 << tosses)


def ballots(path: Path, ids: Sequence[str]) -> tuple[list[Option], list[Option]]:
    """Self-consistency and adaptive consistency at every tier and number of votes; empty without answers.

    The table's cells must hold `answers` and `right`, one entry per sample. ids: the prompts, in order.
    """
    content = path.read_bytes()
    text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    decoder = msgspec.json.Decoder(_Row)
    rows = {row.id: row.tiers for row in map(decoder.decode, filter(None, text.split(b"\n")))}
    chosen = [rows[name] for name in ids]
    fixed: list[Option] = []
    early: list[Option] = []
    for tier in chosen[0]:
        cells = [row[tier] for row in chosen]
        samples = min(min(len(cell.answers), len(cell.right)) for cell in cells)
        if samples:
            cast = [votes_of(cell.answers[:samples], cell.right[:samples]) for cell in cells]
            options = _options(tier, cast, np.array([cell.tokens for cell in cells]))
            fixed, early = fixed + options[0], early + options[1]
    return fixed, early


def upper_bounds(table: OutcomeTable) -> tuple[list[Option], list[Option]]:
    """Upper bounds on `ballots`, for a table that only holds shares of right answers.

    They assume that no two wrong answers agree, so real voting can only do worse. Empty if a cell has fewer
    than three samples.
    """
    samples = int(table.samples.min())
    fixed: list[Option] = []
    early: list[Option] = []
    if samples < 3:
        return fixed, early
    for column, tier in enumerate(table.tiers):
        right = np.rint(table.correct[:, column] * samples).astype(int)
        cast = [
            tuple((0, True) if at < good else (at + 1, False) for at in range(samples))
            for good in right.tolist()
        ]
        options = _options(tier, cast, table.tokens[:, column])
        fixed, early = fixed + options[0], early + options[1]
    return fixed, early


def _options(tier: str, cast: Sequence[Votes], tokens: Floats) -> tuple[list[Option], list[Option]]:
    """Voting and adaptive voting at one tier."""
    fixed, early = [], []
    for votes in range(3, len(cast[0]) + 1):  # two votes with a random tie are a single sample
        correct = np.array([majority(samples, votes) for samples in cast])
        fixed.append(Option(f"{tier} × {votes}", correct, tokens * votes))
    for votes in range(2, len(cast[0]) + 1):
        for sure in SURE:
            right, asked = np.array([adaptive(samples, votes, sure) for samples in cast]).T
            early.append(Option(f"{tier} × {votes}, until {sure:.0%} sure", right, tokens * asked))
    return fixed, early
