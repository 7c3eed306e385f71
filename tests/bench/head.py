"""Measures CPU time per prompt of an estimate, by the kernel and by NumPy: `python -m tests.bench.head`."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from router_model.encoders.ngrams import ngram_features
from router_model.encoders.scanning import ngram_counts
from router_model.head import load_named
from router_model.native.library import kernel
from router_model.predictor import TierLength
from tests.bench.machine import describe

PROMPTS, WORDS, ROUNDS = 500, 150, 6  # 150 words are about 200 tokens
USUAL = tuple(TierLength(name, length, 16) for name, length in (("direct", 0), ("short", 24), ("long", 320)))
RUNGS = tuple(TierLength(f"r{at}", round(512 * 2 ** (at / 2)) if at else 0, 2048) for at in range(13))
CASES = {
    "an unknown model, 13 rungs": ("general", "unheard-of", RUNGS),
    "the tiny reasoner, 3 tiers": ("tiny", "tiny", USUAL),
    "the tiny reasoner, 13 rungs": ("tiny", "tiny", RUNGS),
    "Qwen3-8B as measured, 3 tiers": (
        "general",
        "gsm8k_qwen3_8b_forced",
        tuple(TierLength(f"t{length}", length, 2048) for length in (128, 256, 512)),
    ),
}
"""By name: head, model and ladder."""
_LETTERS = "etaoinshrdlucmfwypvbgk"


def prompts(seed: int) -> list[str]:
    """Texts of words and numbers, with words from a vocabulary of 4,000."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(_LETTERS, k=rng.randint(1, 9))) for _ in range(4_000)]
    return [
        " ".join(str(rng.randint(0, 999)) if rng.random() < 0.1 else rng.choice(words) for _ in range(WORDS))
        for _ in range(PROMPTS)
    ]


def measure(predict: Callable[[str], object]) -> dict[str, float]:
    """Microseconds of CPU time per prompt: median and 99th percentile."""
    spent = []
    for turn in range(ROUNDS):
        for prompt in prompts(0):
            begun = time.thread_time_ns()
            predict(prompt)
            if turn:  # the first run fills the caches
                spent.append((time.thread_time_ns() - begun) / 1_000)
    return {"p50_us": round(statistics.median(spent), 1), "p99_us": round(float(np.percentile(spent, 99)), 1)}


def main() -> None:
    """Print the figures as JSON. Without a kernel, only those of NumPy."""
    found = {"features": {"numpy": measure(ngram_features)}}
    if kernel():
        found["counts, without n-grams"] = {"kernel": measure(ngram_counts)}
    for name, (loaded, model, tiers) in CASES.items():
        head = load_named(loaded)
        ways = {"numpy": replace(head, kernel=None)} | ({"kernel": head} if head.kernel else {})
        found[name] = {
            way: measure(partial(one.predict, model=model, tiers=tiers)) for way, one in ways.items()
        }
    print(json.dumps({"machine": describe()} | found, indent=2))


if __name__ == "__main__":
    main()
