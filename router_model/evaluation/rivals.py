"""The router against fixed ways to answer that need more than one request: votes, drafts, cascades.

Each way joins the fixed tiers: its rival is the best mix of the tiers and all of its options, which knows
nothing about the prompt beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from router_model.arrays import Floats
from router_model.evaluation.cost_quality import Curve, Sweep, at_budget, budget_of, mix_at
from router_model.evaluation.metrics import BUDGETS, interval
from router_model.evaluation.voting import Option
from router_model.training.outcomes import OutcomeTable

Contest = dict[str, dict[str, list[float]]]
"""By budget: what the options add to the mix, and what the router has over both, [estimate, low, high]."""


def measured(table: OutcomeTable, tiers: Sequence[str]) -> list[Option]:
    """Tiers of a table as options, such as a cascade that was measured as a whole."""
    columns = [table.tiers.index(tier) for tier in tiers]
    return [
        Option(table.tiers[column], table.correct[:, column], table.tokens[:, column]) for column in columns
    ]


def two_drafts(table: OutcomeTable, draft: str, think: str) -> tuple[Option, Option]:
    """Two drafts: if they agree, the answer, else a thought (DART, arXiv 2606.23181), as two bounds.

    The table says how many of a prompt's drafts are right, not what they say, so it cannot tell whether two
    wrong drafts agree. The first bound lets them never agree: a wrong answer always leads to a thought. The
    second lets them always agree.

    Raises: ValueError, if a prompt has fewer than two drafts.
    """
    first, then = table.tiers.index(draft), table.tiers.index(think)
    count = table.samples[:, first]
    if count.min() < 2:
        raise ValueError(f"{table.name}: {draft} has a single sample, and two drafts need two")
    right = np.rint(table.correct[:, first] * count)
    pairs = count * (count - 1)
    both, one = right * (right - 1) / pairs, 2 * right * (count - right) / pairs
    return (
        _drafted("if wrong drafts never agree", table, first, then, both, 1 - both),
        _drafted("if wrong drafts always agree", table, first, then, both, one),
    )


def _drafted(  # noqa: PLR0917
    name: str, table: OutcomeTable, first: int, then: int, both: Floats, thought: Floats
) -> Option:
    """both: P(both drafts are right). thought: P(they disagree)."""
    return Option(
        name,
        both + thought * table.correct[:, then],
        2 * table.tokens[:, first] + thought * table.tokens[:, then],
    )


def contests(
    rivals: Mapping[str, Sequence[Option]],
    routed: Sequence[Sweep],
    tiers: Sequence[Sweep],
    draws: int,
    seed: int,
) -> dict[str, Contest]:
    """The router against each rival at the five budgets, in points over the mix of the fixed tiers.

    routed, tiers: one sweep per seed; seeds are averaged. Options hold every prompt that a sweep has rows of.
    """
    random = np.random.default_rng(seed)
    prompts = 1 + max(int(fixed.rows.max()) for fixed in tiers)
    weights = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=draws).astype(float)
    every = [None, *weights]
    fields = {
        name: [_joined(fixed, options) for fixed in tiers] for name, options in rivals.items() if options
    }
    found = np.zeros((len(fields), len(BUDGETS), 2, len(every)))
    for draw, weighted in enumerate(every):
        for run, fixed in enumerate(tiers):
            ground, own = fixed.curve(weighted), routed[run].curve(weighted)
            for place, joined in enumerate(fields.values()):
                found[place, :, :, draw] += _over(ground, own, joined[run].curve(weighted))
    found /= len(tiers)
    return {
        name: {
            budget: {
                "rival": list(interval(found[place, at, 0])),
                "router": list(interval(found[place, at, 1])),
            }
            for at, budget in enumerate(BUDGETS)
        }
        for place, name in enumerate(fields)
    }


def _joined(fixed: Sweep, options: Sequence[Option]) -> Sweep:
    """The fixed tiers and the options, all prompts alike."""
    rows = fixed.rows
    return Sweep(
        rows,
        np.vstack([fixed.tokens, *(option.tokens[rows] for option in options)]),
        np.vstack([fixed.correct, *(option.correct[rows] for option in options)]),
    )


def _over(ground: Curve, own: Curve, rival: Curve) -> Floats:
    """What the rival has over the mix, and the router over the rival, [budgets, 2]."""
    rows = []
    for extra in BUDGETS.values():
        budget = budget_of(ground, extra)
        best = mix_at(rival, budget)
        rows.append((best - mix_at(ground, budget), at_budget(own, budget).accuracy - best))
    return np.array(rows)
