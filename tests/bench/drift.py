"""How often the watch for drift raises a false alarm, and how soon it finds a fall.

Run `python -m tests.bench.drift [QUARTERS]`.
"""

from __future__ import annotations

import random
import statistics
import sys

from gateway.evidence.drift.watch import FALL, QUARTER, Seen, Watch

TIERS = ("direct", "short", "medium", "long")
BIASES = (0.0, 0.01, 0.02)
ANSWERS = 600
"""Graded answers of one tier in a quarter."""


def quarter(
    share: float, seed: int, *, bias: float = 0.0, change: int | None = None, days: bool = True
) -> int | None:
    """Graded answers of the first tier until the first alarm, looked at once a day; None without one.

    share: of right answers that the head expects; its P(right) is spread as Beta(5·share, 5·(1 − share)).
    bias: how much too high the head's P(right) is in all tiers. change: from this answer on, the first tier
    has a share of right answers that is lower by FALL.
    """
    draw = random.Random(seed)
    watch = Watch(0.02)
    tiers = TIERS if change is None else TIERS[:1]
    opened = TIERS[1:] if change is not None else ()
    for tier in opened:  # so that the limit is that of all tiers
        watch.see(Seen(0.0, "m", tier, "h", False, 1.0, 1.0))
    seen_day = 0
    for n in range(ANSWERS if change is None else change + 1_500):
        at = n * QUARTER / ANSWERS
        for tier in tiers:
            p = draw.betavariate(5 * share, 5 * (1 - share))
            fallen = FALL if change is not None and n >= change else bias
            right = draw.random() < p * (1 - fallen / share)
            watch.see(Seen(at, "m", tier, "h", False, float(right), p))
        day = int(at // 86_400)
        if days and day == seen_day and n + 1 < ANSWERS:
            continue
        seen_day = day
        if any(found.since is not None for found in watch.tell(at)):
            return n + 1
    return None


def false_alarms(share: float, bias: float, quarters: int) -> float:
    """Share of quarters in which any of the tiers raises an alarm without a fall."""
    return sum(quarter(share, seed, bias=bias) is not None for seed in range(quarters)) / quarters


def found_within(share: float, quarters: int) -> tuple[float, float]:
    """Median and ninth decile of the graded answers from the fall, at any time of a quarter, to the alarm."""
    delays = []
    for seed in range(quarters):
        change = random.Random(-seed - 1).randrange(ANSWERS)
        at = quarter(share, seed, change=change, days=False)
        if at is None or at > change:  # an alarm before the fall is a false one
            delays.append(10_000 if at is None else at - change)
    return statistics.median(delays), statistics.quantiles(delays, n=10)[-1]


def main(quarters: int) -> None:
    for share in (0.9, 0.8, 0.7):
        rates = ", ".join(f"{bias:.2f}: {false_alarms(share, bias, quarters):.2%}" for bias in BIASES)
        median, most = found_within(share, quarters // 2)
        found = f"fall found after {median:.0f} answers, in 90 % after {most:.0f}"
        print(f"right {share:.2f}  false alarms at bias {rates}  {found}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
