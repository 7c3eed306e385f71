"""What a prediction costs in CPU, features and head, alone in a process: `python -m tests.bench.head`."""

from __future__ import annotations

import json
import random
import statistics
import time

import numpy as np

from router_model.head import TierLength, load_named
from tests.bench.machine import describe

PROMPTS, WORDS, ROUNDS = 500, 180, 6
TIERS = tuple(TierLength(name, length, 16) for name, length in (("direct", 0), ("short", 24), ("long", 320)))
_LETTERS = "etaoinshrdlucmfwypvbgk"


def prompts(seed: int) -> list[str]:
    """Questions of 180 words and numbers, each word from a vocabulary of 4,000."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(_LETTERS, k=rng.randint(1, 9))) for _ in range(4_000)]
    return [
        " ".join(str(rng.randint(0, 999)) if rng.random() < 0.1 else rng.choice(words) for _ in range(WORDS))
        for _ in range(PROMPTS)
    ]


def measure(name: str) -> dict[str, float]:
    """Microseconds of CPU a prediction: median and 99th percentile."""
    head, asked, spent = load_named(name), prompts(0), []
    for turn in range(ROUNDS):
        for prompt in asked:
            begun = time.process_time_ns()
            head.predict(prompt, "tiny", TIERS)
            if turn:  # the first is for the caches
                spent.append((time.process_time_ns() - begun) / 1_000)
    return {"p50_us": round(statistics.median(spent), 1), "p99_us": round(float(np.percentile(spent, 99)), 1)}


def main() -> None:
    found = {name: measure(name) for name in ("general", "tiny")}
    print(json.dumps({"machine": describe()} | found, indent=2))


if __name__ == "__main__":
    main()
