"""How often the intervals of the off-policy estimates hold the truth, on made logs whose truth is known.

Run `python -m tests.bench.off_policy [LOGS]`.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np

from router_model.allocation import best_tiers
from router_model.arrays import Floats
from router_model.evaluation.off_policy import (
    Logged,
    PolicyEstimate,
    Weighing,
    chosen_alone,
    policy_difference,
    policy_estimate,
)

PRICE = 0.02
EXPLORED = 0.1
"""Share of the requests whose rung was drawn at random."""
JUDGED = 0.3
"""Share of the answers that have a score."""
_BUDGETS = np.array([50.0, 300.0, 800.0, 2_000.0])
_METHODS: tuple[Weighing, ...] = ("snips", "dr")


class World(NamedTuple):
    """Prompts with the truth about them, and what two heads say."""

    right: Floats
    """P(right), [N, T]."""
    used: Floats
    """Mean completion tokens, [N, T]."""
    incumbent: Floats
    """P(right) by the head that logs, [N, T]."""
    candidate: Floats
    conversation: Floats


def world(prompts: int, draw: np.random.Generator) -> World:
    """Conversations of one to four prompts, which are about equally hard. Both heads are wrong."""
    sizes = draw.integers(1, 5, prompts)
    conversation = np.repeat(np.arange(prompts), sizes)[:prompts]
    hard = 2.5 * draw.normal(size=prompts)[conversation] + 0.7 * draw.normal(size=prompts)
    gain = draw.exponential(1.0, prompts)
    logits = (1.0 - hard)[:, None] + gain[:, None] * np.array([0.0, 0.8, 1.5, 2.0])
    noise = draw.normal(size=(prompts, 1))
    used = _BUDGETS * np.exp(0.2 * hard[:, None])
    return World(
        _share(logits),
        used,
        _share(0.7 * logits + 0.8 * noise + 0.6),
        _share(0.9 * logits - 0.3),
        conversation,
    )


def policies(made: World) -> tuple[Floats, Floats]:
    """The probabilities of the rungs under the candidate and under the incumbent, which explores."""
    rungs = made.right.shape[1]
    candidate = chosen_alone(best_tiers(made.candidate, made.used, PRICE), rungs)
    incumbent = chosen_alone(best_tiers(made.incumbent, made.used, PRICE), rungs)
    return candidate, (1 - EXPLORED) * incumbent + EXPLORED / rungs


def logged(made: World, served_by: Floats, draw: np.random.Generator) -> Logged:
    """What is known after these prompts were served."""
    rows = np.arange(len(made.right))
    rung = (served_by.cumsum(axis=1) > draw.random((len(rows), 1))).argmax(axis=1)
    score = (draw.random(len(rows)) < made.right[rows, rung]).astype(float)
    score[draw.random(len(rows)) >= JUDGED] = np.nan
    tokens = made.used[rows, rung] * draw.gamma(2.0, 0.5, len(rows))
    return Logged(
        *(rung, served_by, score, tokens),
        *(made.incumbent, 1.3 * made.used, made.conversation.astype(np.int64)),
    )


def worth(made: World, policy: Floats) -> tuple[float, float, float]:
    """Right answers, tokens and value per request, as they are."""
    right = float((policy * made.right).sum(axis=1).mean())
    tokens = float((policy * made.used).sum(axis=1).mean())
    return right, tokens, right - PRICE * tokens / 1_000


def coverage(prompts: int, logs: int) -> dict[tuple[str, Weighing], tuple[list[float], float]]:
    """By question and method: the shares of intervals that hold the truth, and the median width for right."""
    draw = np.random.default_rng(1)
    large = world(1_000_000, draw)
    ours, theirs = (np.array(worth(large, policy)) for policy in policies(large))
    held: dict[tuple[str, Weighing], list[list[bool]]] = {}
    widths: dict[tuple[str, Weighing], list[float]] = {}
    for _ in range(logs):
        made = world(prompts, draw)
        candidate, incumbent = policies(made)
        log = logged(made, incumbent, draw)
        for method in _METHODS:
            found: dict[str, tuple[PolicyEstimate, Floats]] = {
                "candidate": (policy_estimate(log, candidate, PRICE, method=method), ours),
                "difference": (
                    policy_difference(log, candidate, incumbent, PRICE, method=method),
                    ours - theirs,
                ),
            }
            for name, (estimate, truth) in found.items():
                if estimate.support.missing is None:
                    held.setdefault((name, method), []).append(
                        [e.low <= t <= e.high for e, t in zip(estimate[:3], truth, strict=True)]
                    )
                    widths.setdefault((name, method), []).append(estimate.right.high - estimate.right.low)
    return {
        key: (np.mean(rows, axis=0).tolist(), float(np.median(widths[key]))) for key, rows in held.items()
    }


def _share(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logits)))


def main(logs: int) -> None:
    for prompts in (3_000, 10_000, 30_000):
        for (name, method), (shares, width) in coverage(prompts, logs).items():
            right, tokens, value = (f"{share:.1%}" for share in shares)
            print(
                f"{prompts:>6,} rows  {name:10} {method:5}  right {right}  tokens {tokens}  value {value}"
                f"  width {width:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
