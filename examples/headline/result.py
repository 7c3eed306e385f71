"""Compares adaptive with the best mix, self-consistency and the oracle. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.demo.score import RESAMPLES
from examples.headline.ask import Answers, name_of
from examples.tiny_reasoner.task import Question
from router_model.allocation import allocate

Floats = NDArray[np.float64]


def majority(texts: Sequence[str | None], votes: int, answer: str) -> float:
    """P(right) of the most frequent of the first `votes` answers; ties are random, no answer is no vote."""
    counts = Counter(text for text in texts[:votes] if text is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    leading = [text for text, count in counts.items() if count == most]
    return float(answer in leading) / len(leading)


@dataclass(frozen=True, slots=True)
class Way:
    """Right answers and tokens of one method, per question, [N]."""

    name: str
    right: Floats
    tokens: Floats


def fixed_ways(pinned: Mapping[int, Answers], questions: Sequence[Question]) -> dict[int, Way]:
    """The methods that give every question the same thinking budget, by budget."""
    return {
        budget: Way(name_of(budget), given.right(questions), given.tokens) for budget, given in pinned.items()
    }


def vote_ways(pinned: Mapping[int, Answers], questions: Sequence[Question]) -> dict[int, list[Way]]:
    """Per thinking budget, the methods for every number of votes up to the number of samples."""
    found: dict[int, list[Way]] = {}
    for budget, given in pinned.items():
        ways = found[budget] = []
        for votes in range(1, len(given.texts[0]) + 1):
            pairs = zip(given.texts, questions, strict=True)
            right = np.array([majority(texts, votes, question.answer) for texts, question in pairs])
            ways.append(Way(f"{name_of(budget)} × {votes}", right, given.tokens * votes))
    return found


class Bootstrap:
    """Means over the questions and over resamples, which all methods share so that pairs stay pairs."""

    def __init__(self, count: int, seed: int = 0) -> None:
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
        self._weights = np.vstack([np.full(count, 1 / count), draws])

    def means(self, values: Floats) -> Floats:
        """The mean, then the mean of each resample: [1 + RESAMPLES]."""
        return np.asarray(self._weights @ values)

    def mix(self, ways: Sequence[Way], tokens: Floats) -> Floats:
        """The best mix of the methods at these mean tokens, [1 + RESAMPLES]; see `score.mix_at`."""
        rights, spent = (
            np.stack([self.means(getattr(way, name)) for way in ways]) for name in ("right", "tokens")
        )
        best: Floats = np.where(spent <= np.maximum(tokens, spent.min(axis=0)), rights, 0.0).max(axis=0)
        for right, used in zip(rights, spent, strict=True):
            apart = (used <= tokens) & (tokens < spent)
            share = (tokens - used) / np.where(apart, spent - used, 1.0)
            best = np.maximum(best, np.where(apart, right + (rights - right) * share, 0.0).max(axis=0))
        return best

    def oracle(self, ways: Sequence[Way], tokens: Floats) -> Floats:
        """The best choice of a tier for each question, given every outcome beforehand.

        The choice is made once, on all questions at the budget itself; resamples reweight its outcomes.
        """
        right, spent = (
            np.stack([getattr(way, name) for way in ways], axis=1) for name in ("right", "tokens")
        )
        chosen = allocate(right, spent, float(tokens[0])).probabilities
        return self.means((chosen * right).sum(axis=1))


def _cell(accuracy: Floats, tokens: Floats) -> dict[str, float]:
    low, high = np.percentile(accuracy[1:], [2.5, 97.5])
    return {
        "accuracy": round(float(accuracy[0]), 5),
        "tokens": round(float(tokens[0]), 3),
        "low": round(float(low), 5),
        "high": round(float(high), 5),
    }


def _difference(one: Floats, other: Floats) -> dict[str, float]:
    low, high = np.percentile((one - other)[1:], [2.5, 97.5])
    values = {"gain": float(one[0] - other[0]), "low": float(low), "high": float(high)}
    return {name: round(value, 5) for name, value in values.items()}


def compare(
    budget: dict[str, float],
    adaptive: Way,
    fixed: Sequence[Way],
    votes: Sequence[Way],
    boot: Bootstrap,
) -> dict[str, Any]:
    """One row, all methods at the tokens that adaptive used. relative_gain: over the cheapest fixed budget.

    budget: `budget`, tokens per question, and `times_direct`, the same in multiples of the cheapest one's.
    fixed: the rungs of the ladder, cheapest first. votes: self-consistency at each rung, for each number of
    votes; the best mix of them is taken.
    """
    right, tokens = boot.means(adaptive.right), boot.means(adaptive.tokens)
    mix, voting = boot.mix(fixed, tokens), boot.mix(votes, tokens)
    base = boot.means(fixed[0].right)
    return {
        **budget,
        "adaptive": _cell(right, tokens),
        "best_mix": _cell(mix, tokens),
        "self_consistency": _cell(voting, tokens),
        "oracle": _cell(boot.oracle(fixed, tokens), tokens),
        "over_mix": _difference(right, mix),
        "over_self_consistency": _difference(right, voting),
        "relative_gain": _difference(right / base, np.ones_like(base)),
        "relative_gain_self_consistency": _difference(voting / base, np.ones_like(base)),
    }


def over(adaptive: Way, coarser: Sequence[Way], boot: Bootstrap) -> dict[str, float]:
    """Right answers beyond the best mix of a coarser ladder's runs, at the tokens that adaptive used."""
    return _difference(boot.means(adaptive.right), boot.mix(coarser, boot.means(adaptive.tokens)))


def alone(way: Way, boot: Bootstrap) -> dict[str, Any]:
    """The row of one fixed thinking budget."""
    return {"name": way.name} | _cell(boot.means(way.right), boot.means(way.tokens))
