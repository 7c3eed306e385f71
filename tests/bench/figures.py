"""What is computed from results: the figures of the tables and of the goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from tests.bench.jobs import Result

Figure: TypeAlias = Callable[[Result], float | None]
LIMITED = 0.90
"""Share of their core above which backend and load are the bottleneck."""
NOISY = 0.10
"""Share of a core that other processes took."""
STOLEN = 0.05
"""Share of the machine that the host took."""


def field(name: str) -> Figure:
    """A field of the result."""
    return partial(_field, name)


def _field(name: str, result: Result) -> float | None:
    value: float | None = getattr(result, name)
    return value


def request_rate(result: Result) -> float:
    return result.requests / result.seconds


def chunk_rate(result: Result) -> float:
    return result.chunks / result.seconds


def cpu_per_request(result: Result) -> float | None:
    """Microseconds of the target's CPU time."""
    return result.target_cpu_s * 1e6 / result.requests if result.requests and result.target_cpu_s else None


def cpu_per_chunk(result: Result) -> float | None:
    """Microseconds of the target's CPU time."""
    return result.target_cpu_s * 1e6 / result.chunks if result.chunks and result.target_cpu_s else None


def chunks_per_read(result: Result) -> float | None:
    return result.chunks / result.reads if result.reads else None


def unhindered_rate(result: Result) -> float | None:
    """Requests/s if each process of the target had a core to itself: the busiest bounds it."""
    return result.requests / result.busiest_cpu_s if result.busiest_cpu_s else None


def busiest_share(result: Result) -> float | None:
    """The busiest process's percentage of the target's CPU time."""
    return 100 * result.busiest_cpu_s / result.target_cpu_s if result.target_cpu_s else None


def growth(result: Result) -> float | None:
    """How many times as long small requests wait beside idle clients and large prompts."""
    if not (result.p99_ms and result.quiet_p99_ms):
        return None
    return result.p99_ms / result.quiet_p99_ms


def median(results: list[Result], figure: Figure) -> float | None:
    values = [value for result in results if (value := figure(result)) is not None]
    return statistics.median(values) if values else None


def added(results: list[Result], direct: list[Result], figure: Figure) -> float | None:
    """The median minus that of the path without a gateway."""
    value, base = median(results, figure), median(direct, figure)
    return None if value is None or base is None else value - base


def ratio(results: list[Result], peer: list[Result], figure: Figure) -> float | None:
    """The median divided by that of a peer in the same run."""
    value, base = median(results, figure), median(peer, figure)
    return value / base if value is not None and base else None


def marks(results: list[Result]) -> str:
    """`*` for a bench that was the bottleneck, `!` for a disturbed measurement."""
    limited = statistics.median(result.bench_busy for result in results) >= LIMITED
    noisy = any(result.foreign >= NOISY or result.steal >= STOLEN for result in results)
    return (" *" if limited else "") + (" !" if noisy else "")
