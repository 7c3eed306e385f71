"""Outcome tables with a known answer, for tests of training and measuring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from router_model.training.outcomes import OutcomeTable

EASY = "add the two numbers and tell me the sum of {} and {} please"
HARD = "prove the theorem about integrals over the {} th and {} th manifold"


def table(prompts: int = 120, *, learnable: bool = True, samples: int = 1, seed: int = 0) -> OutcomeTable:
    """Half the prompts are easy and need no long thought, half are hard and right at `long` alone.

    Where not learnable, which half a prompt belongs to is drawn without regard to its text.
    """
    random = np.random.default_rng(seed)
    hard = np.arange(prompts) % 2 == 1
    texts = [(HARD if one else EASY).format(at, at + 7) for at, one in enumerate(hard)]
    if not learnable:
        hard = random.permutation(hard)
    chance = np.where(hard[:, None], [0.05, 0.95], [0.95, 0.95])
    return OutcomeTable(
        name="made",
        ids=tuple(f"q{at}" for at in range(prompts)),
        datasets=tuple("a" if at % 4 < 2 else "b" for at in range(prompts)),
        prompts=tuple(texts),
        tiers=("short", "long"),
        correct=random.binomial(samples, chance) / samples,
        tokens=np.tile([10.0, 110.0], (prompts, 1)) + random.integers(0, 5, (prompts, 2)),
        samples=np.full((prompts, 2), samples),
        digest="0",
    )


def write(found: OutcomeTable, path: Path) -> Path:
    """The table as a file."""
    rows = []
    for at, prompt in enumerate(found.prompts):
        cells = {
            tier: {
                "correct": float(found.correct[at, column]),
                "tokens": float(found.tokens[at, column]),
                "n": int(found.samples[at, column]),
            }
            for column, tier in enumerate(found.tiers)
        }
        rows.append({"id": found.ids[at], "dataset": found.datasets[at], "prompt": prompt, "tiers": cells})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
