"""The result in words. No I/O."""

from __future__ import annotations

import numpy as np

from examples.demo.score import Gain, Score, scores
from examples.demo.traffic import Asked, Plan
from examples.servers import TIERS

FEWEST = 20  # minimum number of questions for a score


def standing(asked: list[Asked]) -> tuple[int, list[Score], Gain | None]:
    """Number of questions that every method answered, and the scores of adaptive, the mix, and each tier."""
    done = [entry for entry in asked if entry.complete]
    if len(done) < FEWEST:
        return len(done), [], None
    adaptive = [entry.adaptive for entry in done if entry.adaptive]
    pair = (np.array([float(a.right) for a in adaptive]), np.array([float(a.tokens) for a in adaptive]))
    fixed = {
        tier: (
            np.array([float(entry.fixed[tier].right) for entry in done]),
            np.array([float(entry.fixed[tier].tokens) for entry in done]),
        )
        for tier in TIERS
    }
    (first, *tiers, mix), gain = scores(pair, fixed)
    return len(done), [first, mix, *tiers], gain


def paragraph(asked: list[Asked]) -> str:
    """The result as one paragraph."""
    count, rows, gain = standing(asked)
    refused = sum(entry.refused is not None for entry in asked)
    if gain is None:
        return (
            f"{len(asked)} questions were asked, and every method answered {count} of them; "
            f"a score needs at least {FEWEST}."
        )
    adaptive, mix, *fixed = rows
    longest = fixed[-1]
    difference = "no clear difference"
    if gain.low > 0 or gain.high < 0:
        difference = f"{'more' if gain.low > 0 else 'fewer'} right answers for the same tokens"
    span = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    return (
        f"{len(asked)} held-out questions went to the gateway and {refused or 'none'} of them "
        f"{'was' if refused == 1 else 'were'} refused; {count} were also answered at every fixed tier by the "
        f"same model, at temperature 0. Adaptive got {100 * adaptive.accuracy:.1f} % right with "
        f"{adaptive.tokens:.1f} tokens per question. The best fixed mix, which draws the tier of each "
        f"question at random, gets {100 * mix.accuracy:.1f} % with the same tokens; always {longest.name} "
        f"gets {100 * longest.accuracy:.1f} % with {longest.tokens:.1f} tokens. Adaptive is "
        f"{100 * gain.gain:+.1f} points over the mix, 95 % interval {span}, paired on the same questions: "
        f"{difference}. The interval is wide because the run is short; docs/headline.md has more questions."
    )


def surge_paragraph(asked: list[Asked], prices: list[float], plan: Plan) -> str:
    """Effect of the surge on price and length. prices: one per second."""
    start, end = plan.surge_from, plan.surge_to

    def tokens(since: float, until: float) -> float:
        answers = [entry.adaptive for entry in asked if since <= entry.at < until and entry.adaptive]
        return sum(answer.tokens for answer in answers) / max(len(answers), 1)

    before, during = (prices[int(a) : int(b)] or [0.0] for a, b in ((0, start), (start, end)))
    refused = sum(entry.refused is not None and start <= entry.at < end for entry in asked)
    return (
        f"Before the surge, the price was {np.mean(before):.2g} on average, and an answer took "
        f"{tokens(0, start):.1f} tokens. In the surge, at {plan.factor:g} times the rate, the price rose to "
        f"{max(during):.2g}, and an answer took {tokens(start, end):.1f} tokens; "
        f"{refused or 'no'} {'request was' if refused == 1 else 'requests were'} refused."
    )
