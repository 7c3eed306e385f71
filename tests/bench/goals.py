"""The goals of the product whole, and whether a run reached them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from tests.bench.figures import (
    Figure,
    added,
    chunk_rate,
    cpu_per_chunk,
    cpu_per_request,
    field,
    growth,
    marks,
    median,
    ratio,
    unhindered_rate,
)
from tests.bench.jobs import Result
from tests.bench.report import PEER

WHOLE = "thinkmeter-all"
TWO_WORKERS = "two-workers"
Measured: TypeAlias = Callable[[dict[str, list[Result]]], float | None]
"""From the results of each target in one trial."""


def _own(figure: Figure) -> Measured:
    return lambda found: median(found.get(WHOLE, []), figure)


def _added(figure: Figure) -> Measured:
    return lambda found: added(found.get(WHOLE, []), found.get("direct", []), figure)


def _beside_peer(figure: Figure) -> Measured:
    return lambda found: ratio(found.get(WHOLE, []), found.get(PEER, []), figure)


def _workers(found: dict[str, list[Result]]) -> float | None:
    return ratio(found.get(TWO_WORKERS, []), found.get("one-worker", []), unhindered_rate)


class Goal(NamedTuple):
    about: str
    trial: str
    measured: Measured
    sign: str
    """`≤` or `≥`."""
    bound: float
    unit: str
    target: str = WHOLE


GOALS = (
    Goal("paced streams: CPU per chunk", "paced", _beside_peer(cpu_per_chunk), "≤", 0.9, f"× {PEER}"),
    Goal("streams as fast as possible: chunks/s", "stream", _beside_peer(chunk_rate), "≥", 2.5, f"× {PEER}"),
    Goal("whole responses, 32 clients: CPU per request", "requests", _own(cpu_per_request), "≤", 160, "µs"),
    Goal("added median latency, 1 connection", "latency", _added(field("p50_ms")), "≤", 0.35, "ms"),
    Goal("2,000 paced streams: added delay, p99", "crowd", _added(field("delay_p99_ms")), "≤", 5, "ms"),
    Goal(
        "2,000 paced streams: memory per stream", "crowd", _own(field("kib_per_connection")), "≤", 40, "KiB"
    ),
    Goal(
        "small requests beside 5,000 idle clients and 1 MB prompts: p99", "idle", _own(growth), "≤", 2,
        "× without them",
    ),
    Goal(
        "two workers: requests/s with a core each", "workers", _workers, "≥", 1.8, "× one worker", TWO_WORKERS
    ),
)  # fmt: skip


def verdict(goal: Goal, value: float | None) -> str:
    if value is None:
        return "not measured"
    return "reached" if (value <= goal.bound if goal.sign == "≤" else value >= goal.bound) else "missed"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def markdown(results: dict[str, dict[str, list[Result]]]) -> str:
    """One row for each goal. Empty if the product whole was not measured."""
    if not any(found.get(WHOLE) for found in results.values()):
        return ""
    lines = ["| everything on | target | measured | |", "|---|--:|--:|---|"]
    for goal in GOALS:
        found = results.get(goal.trial, {})
        value = goal.measured(found)
        shown = "-" if value is None else f"{_rounded(value)} {goal.unit}{marks(found[goal.target])}"
        target = f"{goal.sign} {goal.bound:g} {goal.unit}"
        lines.append(f"| {goal.about} | {target} | {shown} | {verdict(goal, value)} |")
    return "\n".join(lines)
