"""Merges the metrics of several workers, in Prometheus's text format, into those of one gateway. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_SUMMED = {
    *("thinkmeter_requests_in_flight", "thinkmeter_connections", "thinkmeter_backend_in_flight"),
    "thinkmeter_shadow_in_flight",
    "thinkmeter_evidence_waiting",
    *("thinkmeter_budget_undelivered", "process_resident_memory_bytes", "process_virtual_memory_bytes"),
    *("process_open_fds", "process_max_fds"),
}
"""Gauges of what each worker has by itself."""
_LOWEST = {
    *("thinkmeter_backend_up", "thinkmeter_redis_up", "thinkmeter_evidence_store_up"),
    "process_start_time_seconds",
}
"""Gauges where one worker that sees a fault is enough."""
_READ = {"thinkmeter_budget_tokens", "thinkmeter_budget_holders_left_out", "thinkmeter_budget_stale_tokens"}
"""Gauges that a worker has read from Redis for this scrape. All others would be older."""


@dataclass(slots=True)
class _Family:
    """One metric."""

    kind: str = "untyped"
    head: list[str] = field(default_factory=list)
    """The lines of its description and type."""
    samples: dict[str, float] = field(default_factory=dict)
    """Values by name and labels."""


def merge_expositions(texts: Iterable[bytes]) -> bytes:
    """One exposition from those of all workers.

    Counters and histograms are summed. So are gauges of what a worker has by itself. Of the others the first
    one with the metric, the lowest or the highest value counts.

    texts: the first is of the worker that was asked.
    """
    merged: dict[str, _Family] = {}
    for text in texts:
        for name, family in _parsed(text).items():
            into = merged.setdefault(name, _Family(family.kind, family.head))
            if name in _READ and into.samples:
                continue
            choose = _rule(name, family.kind)
            for sample, value in family.samples.items():
                known = into.samples.get(sample)
                into.samples[sample] = value if known is None else choose(known, value)
    return _written(merged)


def totals_of(text: bytes) -> bytes:
    """The counters and histograms of an exposition: what a worker that has ended leaves behind."""
    return _written({n: f for n, f in _parsed(text).items() if f.kind in ("counter", "histogram")})


def _rule(name: str, kind: str) -> Callable[[float, float], float]:
    """How two values of a sample become one."""
    if kind in ("counter", "histogram") or name in _SUMMED:
        return lambda first, second: first + second
    if name in _LOWEST:
        return _lower
    return max


def _lower(first: float, second: float) -> float:
    """The lower value; one that is not known does not count."""
    return second if math.isnan(first) else first if math.isnan(second) else min(first, second)


def _parsed(text: bytes) -> dict[str, _Family]:
    """The metrics of an exposition in which the samples of each follow its description."""
    found: dict[str, _Family] = {}
    family = _Family()
    for line in text.decode().split("\n"):
        if line.startswith(("# HELP ", "# TYPE ")):
            _, word, name, rest = [*line.split(" ", 3), ""][:4]
            family = found.setdefault(name, _Family())
            family.head.append(line)
            if word == "TYPE":
                family.kind = rest
        elif line:
            sample, _, value = line.rpartition(" ")
            family.samples[sample] = float(value)
    return found


def _written(families: dict[str, _Family]) -> bytes:
    """The metrics in the text format."""
    lines: list[str] = []
    for family in families.values():
        lines += family.head
        lines += (f"{sample} {_number(value)}" for sample, value in family.samples.items())
    return "".join(f"{line}\n" for line in lines).encode()


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{'+' * (value > 0)}Inf" if math.isinf(value) else repr(value)
