"""A period of two arms whose sums are known row by row."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from gateway.config.costs import CostSettings
from gateway.evidence.rows import Row
from tests.evidence import made
from tests.evidence.made import DAY, NOW, decision

COSTS = CostSettings.model_validate(
    {
        "currency": "EUR",
        "gpu_hour": 2.5,
        "models": {"small": {"prompt": 0.1, "completion": 0.4}, "large": {"gpu_hours": 0.5}},
    }
)
SINCE, UNTIL = NOW - 10 * DAY, NOW


def rungs(lowest: int) -> bytes:
    return json.dumps(
        {"correct": [0.4, 0.6, 0.7], "tokens": [40.0, 120.0, 400.0], "lowest": lowest, "highest": 2},
        separators=(",", ":"),
    ).encode()


def traffic(number: int = 1_500, seed: int = 0) -> Iterator[Row]:
    """Conversations of one to four requests in ten days, a third of them held out, with some feedback.

    The first two days have no hold-out. Some requests fail, some have one rung, some have a minimum.
    """
    rng = random.Random(seed)
    at = 0
    while at < number:
        holdout, model, key = rng.random() < 0.33, rng.choice(["small", "large", "old"]), rng.choice("abc")
        begun = SINCE + rng.random() * 10 * DAY
        early = begun < SINCE + 2 * DAY
        for turn in range(rng.randrange(1, 5)):
            at += 1
            answered, floor, short = rng.random() < 0.95, rng.random() < 0.2, rng.random() < 0.1
            arm = "none" if rng.random() < 0.05 else "holdout" if holdout and not early else "adaptive"
            yield decision(
                at,
                at=min(begun + turn, UNTIL - 1),
                conversation=f"talk-{seed}-{begun:.0f}",
                arm=arm,
                config="before" if early else rng.choice(["first", "second"]),
                model=model,
                key=key,
                team=None if key == "c" else "search",
                status=200 if answered else 429,
                prompt_tokens=rng.randrange(900) if answered else None,
                completion_tokens=int(rng.expovariate(1 / (900 if arm == "holdout" else 500)))
                if answered
                else None,
                rungs=rungs(1 if floor else 0),
                rung=rng.randrange(1 if rng.random() < 0.9 else 0, 3),
                wanted_rung=2 if short else None,
                reason="budget" if short else "price",
                price=rng.random() / 10,
            )
            for source in ("client", "tests")[: rng.choice([0, 0, 1, 2])]:
                yield made.feedback(at, source=source, score=rng.choice([0.0, 0.5, 1.0, 1.0, 1.0]))
