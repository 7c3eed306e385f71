"""The replays on the page of results: every known ladder as a new model, with the prior and with evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.simulation.price_sweep import DEFAULT_PRICE, PriceSweep, sweep_prices
from router_model.allocation import hull
from router_model.head import Head
from router_model.training.calibrate import calibrate
from router_model.training.outcomes import OutcomeError, read_table
from router_model.training.prior import Ladder, fit_prior
from router_model.training.train import train

OWN = (0, 50, 200, 800)
"""Numbers of own prompts that the head is calibrated on; 0 for the prior alone."""
OTHERS = ("farel450_cot_tiers", "lineage800_tiers", "reasoning_gym_tiers", "mmlupro_tiers")
"""Tables that share no prompt with the ladders."""
_REST = 0.15  # share of the prompts that must be left to replay


@dataclass(frozen=True, slots=True)
class Known:
    """A ladder in one of the tables of the report."""

    title: str
    file: str
    budgets: Mapping[str, float]


KNOWN = (
    Known("BBH, Qwen3.5-27B", "bbh_qwen35_27b_thinking", {"t1024": 1024, "t2048": 2048, "t4096": 4096}),
    Known("MATH-500, Qwen3.5-27B", "math500_qwen35_27b_thinking",
          {"t2048": 2048, "t4096": 4096, "t8192": 8192}),
    Known("GSM8K forced, Qwen3.5-27B", "gsm8k_qwen35_27b_forced", {"t128": 128, "t256": 256, "t512": 512}),
    Known("GSM8K forced, Qwen3-8B", "gsm8k_qwen3_8b_forced", {"t128": 128, "t256": 256, "t512": 512}),
    Known("GSM8K forced, R1-8B", "gsm8k_r1_llama8b_forced", {"t256": 256, "t512": 512, "t1024": 1024}),
    Known("GSM8K on/off, Qwen3-8B", "gsm8k_qwen3_tiers",
          {"qwen3-8b/nothink@2048": 0, "qwen3-8b/think@1024": 1024, "qwen3-8b/think@2048": 2048}),
    Known("GSM8K on/off, Qwen3-8B on vLLM", "gsm8k_qwen3_tiers",
          {"qwen3-8b-vllm/nothink": 0, "qwen3-8b-vllm/think@1024": 1024, "qwen3-8b-vllm/think@2048": 2048,
           "qwen3-8b-vllm/think@4096": 4096}),
    Known("GSM8K on/off, Qwen3.5-9B", "gsm8k_qwen3_tiers",
          {"qwen3.5-9b/nothink@512": 0, "qwen3.5-9b/think@1024": 1024, "qwen3.5-9b/think@2048": 2048}),
    Known("MATH-500 on/off, Qwen3-8B", "math500_qwen3_tiers",
          {"qwen3-8b/nothink@2048": 0, "qwen3-8b-vllm/think@2048": 2048}),
    Known("GSM8K + MATH-500 on/off, Qwen3-8B", "qwen3_8b_budget_mix", {"cap2048": 0, "think2048": 2048}),
)  # fmt: skip


def replay_rows(
    folder: Path, seeds: Sequence[int], tick: Callable[[str], object]
) -> Iterator[dict[str, Any]]:
    """One JSON object for each known ladder whose table is in the folder, and each number of own prompts.

    The head has seen none of the ladders' tables: it is trained on the others of the folder, and its prior
    is fitted without the ladder that is replayed.
    """
    ladders = [
        (known.title, Ladder(read_table(path, partial=True), known.budgets))
        for known in KNOWN
        if (path := folder / f"{known.file}.jsonl.gz").exists()
    ]
    others = [path for name in OTHERS if (path := folder / f"{name}.jsonl.gz").exists()]
    if not ladders or not others:
        return
    tick("training a head on other tables")
    head = train([read_table(path, partial=True) for path in others], "others")
    for title, ladder in ladders:
        prior = fit_prior([each for name, each in ladders if name != title])
        stranger = replace(head, prior=prior or head.prior)
        for own in OWN:
            if own <= (1 - _REST) * len(ladder.measured):
                tick(f"{title}: {own} own prompts")
                swept = [with_evidence(stranger, ladder, own, seed) for seed in (seeds if own else seeds[:1])]
                yield _row(title, own, swept)


def with_evidence(head: Head, ladder: Ladder, own: int, seed: int) -> PriceSweep:
    """The replay after the head was calibrated on `own` of the prompts, for the others.

    Raises: OutcomeError.
    """
    if not own:
        return sweep_prices(head, ladder)
    table = ladder.measured
    if own >= len(table):
        raise OutcomeError(f"{table.name}: {own} own prompts leave none of {len(table)} to replay")
    order = np.random.default_rng(seed).permutation(len(table))
    known = replace(table.take(order[:own]), lengths=dict(ladder.budgets))
    return sweep_prices(
        calibrate(head, known, seed), Ladder(table.take(order[own:]), ladder.budgets), table.name
    )


def _row(title: str, own: int, swept: Sequence[PriceSweep]) -> dict[str, Any]:
    """Means over the seeds."""
    default = [next(point for point in each.points if point.price == DEFAULT_PRICE) for each in swept]
    return {
        "table": title,
        "own": own,
        "prompts": round(float(np.mean([each.prompts for each in swept]))),
        "fixed": [each._asdict() for each in swept[0].fixed],
        "default": {
            "tokens": float(np.mean([point.tokens for point in default])),
            "accuracy": float(np.mean([point.accuracy for point in default])),
        },
        "default_loss": float(np.mean([each.default_loss for each in swept])),
        "loss": float(np.mean([each.loss for each in swept])),
        "gain": float(np.mean([_gain(each) for each in swept])),
        "token_ratio": float(np.exp(np.mean([np.log(each.token_ratio) for each in swept]))),
    }


def _gain(swept: PriceSweep) -> float:
    """Right answers above the best fixed mix, mean over the tokens between the cheapest tier and the best."""
    low = min(each.tokens for each in swept.fixed)
    high = max(swept.fixed, key=lambda each: each.accuracy).tokens
    if high <= low:
        return 0.0
    tokens = np.linspace(low, high, 41)
    mixed = [(each.tokens, each.accuracy) for each in swept.fixed]
    # above the last point of the policy, its tokens stay unused
    own = [(point.tokens, point.accuracy) for point in swept.points]
    reached, best = (np.interp(tokens, *_hull(points)) for points in ([*own, mixed[0]], mixed))
    return float((reached - best).mean())


def _hull(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    tokens, correct = zip(*points, strict=True)
    corners = hull(correct, tokens)
    return [tokens[at] for at in corners], [correct[at] for at in corners]
