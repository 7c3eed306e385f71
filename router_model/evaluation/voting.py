"""Self-consistency: ask one tier several times and take the most frequent answer (Wang et al., 2023)."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from router_model.arrays import Floats
from router_model.evaluation.cost_quality import Sweep, at_budget, mix_at
from router_model.training.outcomes import OutcomeTable


class _Cell(msgspec.Struct):
    answers: list[str] = []
    right: list[bool | Annotated[int, msgspec.Meta(ge=0, le=1)]] = []
    tokens: float = 0.0


class _Row(msgspec.Struct):
    id: str
    tiers: dict[str, _Cell]


class Ballot(NamedTuple):
    """The majority of `votes` samples of a tier: expected correctness and tokens of each prompt, [N]."""

    tier: str
    votes: int
    correct: Floats
    tokens: Floats


@dataclass(frozen=True, slots=True)
class Contest:
    """Routing against voting at the tokens of one ballot.

    `mix`, `voting` and `routing` are gains over a single sample of the ballot's tier, `more` is routing over
    voting. Lists are [estimate, lower, upper], with 95 % percentile bounds over resampled prompts.
    """

    tier: str
    votes: int
    tokens: float
    single: float
    mix: list[float]
    voting: list[float]
    routing: list[float]
    more: list[float]


def majority(answers: Sequence[str], right: Sequence[bool | int], votes: int) -> float:
    """P(right) of the most frequent of `votes` answers, over all choices of samples; random among ties.

    An empty answer is no vote. Without any vote the result is wrong.
    """
    earned = 0.0
    for chosen in combinations(range(len(answers)), votes):
        count = Counter(answers[sample] for sample in chosen if answers[sample])
        most = max(count.values(), default=0)
        leaders = {answer for answer, times in count.items() if times == most}
        won = {answers[sample] for sample in chosen if right[sample]} & leaders
        earned += len(won) / len(leaders) if leaders else 0.0
    return earned / math.comb(len(answers), votes)


def ballots(path: Path, ids: Sequence[str]) -> list[Ballot]:
    """All ballots of a table whose cells hold `answers` and `right`, one entry per sample; empty for others.

    ids: the prompts, in order.
    """
    content = path.read_bytes()
    text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    decoder = msgspec.json.Decoder(_Row)
    rows = {row.id: row.tiers for row in map(decoder.decode, filter(None, text.split(b"\n")))}
    chosen = [rows[name] for name in ids]
    cast = []
    for tier in chosen[0]:
        samples = min(min(len(row[tier].answers), len(row[tier].right)) for row in chosen)
        tokens = np.array([row[tier].tokens for row in chosen])
        for votes in range(1, samples + 1):
            correct = [
                majority(row[tier].answers[:samples], row[tier].right[:samples], votes) for row in chosen
            ]
            cast.append(Ballot(tier, votes, np.array(correct), tokens * votes))
    return cast


def upper_bounds(table: OutcomeTable) -> list[Ballot]:
    """Upper bounds on ballots, for a table that only holds shares of right answers.

    They assume that no two wrong answers agree, so real voting can only do worse. Empty if a cell has fewer
    than three samples.
    """
    samples = int(table.samples.min())
    cast = []
    for column, tier in enumerate(table.tiers):
        right = np.rint(table.correct[:, column] * samples).astype(int)
        for votes in range(1, samples + 1 if samples > 2 else 0):
            won = [
                majority(
                    ["right"] * good + [f"wrong {number}" for number in range(samples - good)],
                    [True] * good + [False] * (samples - good),
                    votes,
                )
                for good in range(samples + 1)
            ]
            cast.append(Ballot(tier, votes, np.array(won)[right], table.tokens[:, column] * votes))
    return cast


def contests(
    cast: Sequence[Ballot], routed: Sequence[Sweep], tiers: Sequence[Sweep], draws: int, seed: int
) -> list[Contest]:
    """The router against ballots of three or more votes that cost no more than the most expensive tier.

    routed, tiers: one sweep per seed. Voting is measured on the same prompts, and seeds are averaged.
    """
    random = np.random.default_rng(seed)
    prompts = len(cast[0].correct)
    weights = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=draws).astype(float)
    every = np.vstack([np.ones(prompts), weights])
    limit = float(tiers[0].curve().tokens.max())
    wanted = [ballot for ballot in cast if ballot.votes >= 3 and ballot.tokens.mean() <= limit]
    singles = {ballot.tier: ballot for ballot in cast if ballot.votes == 1}
    totals = np.zeros((len(wanted), len(every), 5))
    for own, fixed in zip(routed, tiers, strict=True):
        for draw, row in enumerate(every):
            curve, ground = own.curve(row), fixed.curve(row)
            here = row[fixed.rows] / row[fixed.rows].sum()
            for position, ballot in enumerate(wanted):
                spent = float(ballot.tokens[fixed.rows] @ here)
                totals[position, draw] += (
                    spent,
                    singles[ballot.tier].correct[fixed.rows] @ here,
                    mix_at(ground, spent),
                    ballot.correct[fixed.rows] @ here,
                    at_budget(curve, spent).accuracy,
                )
    return [_contest(ballot, *totals[position].T / len(routed)) for position, ballot in enumerate(wanted)]


def _contest(  # noqa: PLR0917
    ballot: Ballot, spent: Floats, single: Floats, mix: Floats, voting: Floats, routing: Floats
) -> Contest:
    return Contest(
        ballot.tier, ballot.votes, float(spent[0]), float(single[0]), _interval(mix - single),
        _interval(voting - single), _interval(routing - single), _interval(routing - voting),
    )  # fmt: skip


def _interval(values: Floats) -> list[float]:
    return [float(values[0]), *np.percentile(values[1:], [2.5, 97.5]).tolist()]
