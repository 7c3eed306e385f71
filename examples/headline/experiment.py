"""The measurement: estimates, fixed thinking budgets, and adaptive runs with each ladder at each budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from examples import servers
from examples.headline import ask
from examples.headline.result import Bootstrap, Way, alone, compare, fixed_ways, over, vote_ways
from examples.tiny_reasoner.task import Question
from router_model.allocation import allocate

TIMES_DIRECT = (2.0,)
EXTRA_SHARES = (0.1, 0.25, 0.5, 0.75)
"""Further budgets, as shares of the way from the cheapest tier's tokens to the longest tier's."""
MOST_VOTES = 16
VOTE_TOKENS = 96
"""Self-consistency takes as many samples of a thinking budget as about this many tokens pay for."""
HIGHEST_PRICE = 1_000.0


@dataclass(frozen=True, slots=True)
class Run:
    """The answers with one ladder within one budget."""

    way: Way
    thinking: list[int]
    """The thinking budget of each answer."""
    price: float

    def entry(self, rungs: Sequence[int]) -> dict[str, Any]:
        """Its price, and the share of the questions at each rung."""
        shares = {str(rung): round(self.thinking.count(rung) / len(self.thinking), 5) for rung in rungs}
        return {"price": round(self.price, 6), "thinking": shares}


def samples(thinking: int) -> int:
    """How often every question is asked at a fixed thinking budget."""
    return max(1, min(MOST_VOTES, VOTE_TOKENS // (thinking + 4)))


def budgets(low: float, high: float) -> list[dict[str, float]]:
    """All budgets, ascending, in tokens per question and in multiples of the cheapest tier's tokens.

    low, high: mean tokens of the cheapest and of the longest tier.
    """
    tokens = [times * low for times in TIMES_DIRECT]
    tokens += [low + share * (high - low) for share in EXTRA_SHARES]
    return [{"budget": round(t, 3), "times_direct": round(t / low, 3)} for t in sorted(tokens)]


@dataclass(frozen=True)
class Experiment:
    """Runs gateways in front of one backend and asks them."""

    backend: str
    folder: Path
    """Where gateways put their configuration and log."""
    questions: list[Question]
    others: list[Question]
    """Further questions, on whose estimates the prices are set."""
    progress: Progress

    def measure(self, counts: Sequence[int]) -> dict[str, Any]:
        """The measured part of headline.json. counts: numbers of rungs, rising."""
        ladders = [self.ladder(count) for count in counts]
        rungs = sorted({rung for ladder in ladders for rung in ladder.thinking})
        given = self.pinned(rungs)
        fixed, votes = fixed_ways(given, self.questions), vote_ways(given, self.questions)
        boot = Bootstrap(len(self.questions))
        first, last = fixed[rungs[0]], fixed[rungs[-1]]
        planned = budgets(float(first.tokens.mean()), float(last.tokens.mean()))
        compared: dict[int, list[dict[str, Any]]] = {}
        coarsest: list[Way] = []
        for ladder in ladders:
            runs = [self.adaptive(ladder, row["budget"]) for row in planned]
            coarsest = coarsest or [first, *(run.way for run in runs), last]
            fixed_here = [fixed[rung] for rung in ladder.thinking]
            votes_here = [way for rung in ladder.thinking for way in votes[rung]]
            compared[len(ladder.thinking)] = [
                compare(row, run.way, fixed_here, votes_here, boot)
                | {"over_coarsest": over(run.way, coarsest, boot)}
                | run.entry(ladder.thinking)
                for row, run in zip(planned, runs, strict=True)
            ]
        finest = max(compared)
        return {
            "head": ladders[-1].head,
            "samples": {str(rung): samples(rung) for rung in rungs},
            "fixed": [alone(way, boot) | {"thinking": rung} for rung, way in fixed.items()],
            "rungs": finest,
            "budgets": compared[finest],
            "coarser": {str(count): rows for count, rows in compared.items() if count < finest},
        }

    def ladder(self, count: int) -> ask.Ladder:
        """The ladder with this number of rungs, and the estimates for the other questions."""
        settings = servers.settings(self.backend, model={"rungs": count})
        with servers.gateway(self.folder, settings) as url:
            return asyncio.run(ask.ladder(url, self.others))

    def pinned(self, rungs: Sequence[int]) -> dict[int, ask.Answers]:
        """Answers at every rung, through a gateway whose tiers are the rungs."""
        tiers = {ask.name_of(rung): rung for rung in rungs}
        settings = servers.settings(self.backend, tiers=tiers, model={"rungs": None})
        with servers.gateway(self.folder, settings) as url:
            return {rung: self._answers(url, f"tiny:{name}", samples(rung)) for name, rung in tiers.items()}

    def adaptive(self, ladder: ask.Ladder, budget: float) -> Run:
        """Answers at the price at which the head expects to spend the budget on the other questions."""
        price = min(allocate(ladder.correct, ladder.tokens, budget).price, HIGHEST_PRICE)
        settings = servers.settings(self.backend, model={"rungs": len(ladder.thinking)}, price=price)
        with servers.gateway(self.folder, settings) as url:
            found = self._answers(url, "tiny", 1, f"{len(ladder.thinking)} rungs, {budget:.1f} tokens")
        return Run(Way("adaptive", found.right(self.questions), found.tokens), found.thinking, price)

    def _answers(self, url: str, model: str, count: int, text: str | None = None) -> ask.Answers:
        bar = self.progress.add_task(text or f"{model} × {count}", total=len(self.questions))
        tick: Callable[[], object] = partial(self.progress.advance, bar)
        return asyncio.run(ask.answers(url, model, self.questions, count, tick))
