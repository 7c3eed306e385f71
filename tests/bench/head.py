"""Measures CPU time per prompt of the features and of a prediction: `python -m tests.bench.head`."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from router_model.encoders.ngrams import ngram_features
from router_model.head import load_named
from router_model.predictor import TierLength
from tests.bench.machine import describe

PROMPTS, WORDS, ROUNDS = 500, 150, 6  # 150 words are about 200 tokens
TIERS = tuple(TierLength(name, length, 16) for name, length in (("direct", 0), ("short", 24), ("long", 320)))
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
            begun = time.process_time_ns()
            predict(prompt)
            if turn:  # the first run fills the caches
                spent.append((time.process_time_ns() - begun) / 1_000)
    return {"p50_us": round(statistics.median(spent), 1), "p99_us": round(float(np.percentile(spent, 99)), 1)}


def main() -> None:
    found = {"features": measure(ngram_features)}
    for name in ("general", "tiny"):
        found[name] = measure(partial(load_named(name).predict, model="tiny", tiers=TIERS))
    print(json.dumps({"machine": describe()} | found, indent=2))


if __name__ == "__main__":
    main()
