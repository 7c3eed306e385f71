"""Outcome tables whose signal is known."""

from __future__ import annotations

import numpy as np

from router_model.training.outcomes import OutcomeTable

TIERS = ("direct", "short", "long")
_WORDS = "apple river stone cloud table green quiet seven chair light paper music".split()


def synthetic(
    count: int, seed: int, *, learnable: bool, samples: int = 4, name: str = "made"
) -> OutcomeTable:
    """Sums that need more thinking the more terms they have; the prompt hides them if not `learnable`."""
    draw = np.random.default_rng(seed)
    prompts, correct, tokens = [], [], []
    for at in range(count):
        terms = int(draw.integers(2, 14))
        shown = terms if learnable else 6
        numbers = " + ".join(str(draw.integers(10, 99)) for _ in range(shown))
        prompts.append(f"{' '.join(draw.choice(_WORDS, 4))} {at}: what is {numbers}?")
        right = [np.clip(1.6 - 0.2 * terms / reach, 0.02, 0.97) for reach in (0.6, 1.0, 2.2)]
        correct.append(draw.binomial(samples, right) / samples)
        tokens.append([5, min(20 * terms, 120) * draw.uniform(0.9, 1.1), 45 * terms * draw.uniform(0.9, 1.1)])
    cells = np.full((count, len(TIERS)), samples)
    return OutcomeTable(
        name=name,
        ids=tuple(map(str, range(count))),
        datasets=(name,) * count,
        prompts=tuple(prompts),
        tiers=TIERS,
        correct=np.array(correct),
        tokens=np.array(tokens, float),
        samples=cells,
        digest=f"{name}-{seed}",
    )


def gain_over_mix(correct: np.ndarray, tokens: np.ndarray, truth: OutcomeTable, extra: float = 0.5) -> float:
    """Accuracy of priced decisions at a share of the extra budget, above the best mix of fixed tiers."""
    from router_model.evaluation import cost_quality
    from router_model.evaluation.methods import Estimates

    rows = np.arange(len(truth))
    tiers = cost_quality.fixed(truth.correct, truth.tokens, rows).curve()
    budget = cost_quality.budget_of(tiers, extra)
    swept = cost_quality.sweep(Estimates(correct, tokens), Estimates(truth.correct, truth.tokens), rows)
    return cost_quality.at_budget(swept.curve(), budget).accuracy - cost_quality.mix_at(tiers, budget)
