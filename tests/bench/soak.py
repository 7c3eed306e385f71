"""Resident memory of the gateway over many short streams."""

from __future__ import annotations

import statistics
import sys

from tests.bench import proc
from tests.bench.session import Bench
from tests.bench.targets import Target
from tests.bench.trials import Trial
from tests.fakes.fault import Fault

STREAMS = Trial(
    name="soak",
    about="short streams",
    connections=16,
    seconds=0,
    fault=Fault(tokens=8, reasoning=0),
    stream=True,
    warmup_s=0,
)


def soak(bench: Bench, target: Target, total: int, step: int = 10_000) -> list[tuple[int, float]]:
    """Resident memory in MiB, before and after every `step` streams. Raises: RuntimeError at an error."""
    with bench.running(target) as pids:
        points = [(0, proc.resident_mib(pids))]
        for done in range(step, total + 1, step):
            result = bench.measure(STREAMS, target, pids, requests=step)
            if result.errors:
                raise RuntimeError(f"{result.errors} errors, first: {result.first_error}")
            points.append((done, proc.resident_mib(pids)))
            print(f"{done:>9,} streams  {points[-1][1]:7.1f} MiB", file=sys.stderr, flush=True)
    return points


def slope(points: list[tuple[int, float]]) -> float | None:
    """KiB per request, without the first step, in which start-up and caches take memory."""
    settled = points[1:]
    if len(settled) < 3:
        return None
    line = statistics.linear_regression([done for done, _ in settled], [mib * 1024 for _, mib in settled])
    return line.slope
