"""The results as Markdown tables."""

from __future__ import annotations

import statistics
from typing import Any, Literal, NamedTuple

from tests.bench.figures import (
    LIMITED,
    NOISY,
    STOLEN,
    Figure,
    added,
    busiest_share,
    chunk_rate,
    chunks_per_read,
    cpu_per_chunk,
    cpu_per_request,
    field,
    growth,
    marks,
    median,
    ratio,
    request_rate,
    unhindered_rate,
)
from tests.bench.jobs import Result

PEER = "vllm-router"
LEGEND = (
    "Medians (lowest to highest repetition). bench %: use of the core that backend, Redis and load share. "
    "foreign/steal %: worst share of a core taken by other processes, of the machine by its host. "
    f"*: bench at {LIMITED:.0%} or more, so it is the limit. "
    f"!: foreign {NOISY:.0%} or steal {STOLEN:.0%} or more. × {PEER}: the figure divided by that peer's."
)


class Column(NamedTuple):
    """`base`: shown minus the figure of `direct`, or divided by that of the peer."""

    title: str
    figure: Figure
    digits: int = 0
    base: Literal["", "direct", "peer"] = ""
    ranged: bool = False


REQUESTS = Column("requests/s", request_rate, ranged=True)
CPU_REQUEST = Column("CPU µs/request", cpu_per_request)
CHUNKS = Column("chunks/s", chunk_rate, ranged=True)
CPU_CHUNK = Column("CPU µs/chunk", cpu_per_chunk, 1)
WAITS = (Column("p50 ms", field("p50_ms"), 3), Column("p99 ms", field("p99_ms"), 3))
DELAYS = (
    Column("delay p50 ms", field("delay_p50_ms"), 3),
    Column("delay p99 ms", field("delay_p99_ms"), 2),
    Column("added p50 ms", field("delay_p50_ms"), 3, base="direct"),
    Column("added p99 ms", field("delay_p99_ms"), 2, base="direct"),
)


def _beside_peer(column: Column) -> Column:
    return Column(f"{column.title} × {PEER}", column.figure, 2, base="peer")


COLUMNS = {
    "requests": (REQUESTS, *WAITS, CPU_REQUEST, _beside_peer(REQUESTS), _beside_peer(CPU_REQUEST)),
    "latency": (
        REQUESTS,
        *WAITS,
        Column("added p50 ms", field("p50_ms"), 3, base="direct"),
        Column("added p99 ms", field("p99_ms"), 3, base="direct"),
        CPU_REQUEST,
        _beside_peer(CPU_REQUEST),
    ),
    "stream": (
        CHUNKS,
        Column("chunks/read", chunks_per_read, 1),
        CPU_CHUNK,
        _beside_peer(CHUNKS),
        _beside_peer(CPU_CHUNK),
    ),
    "paced": (
        CHUNKS,
        *DELAYS,
        Column("first byte p50 ms", field("first_byte_p50_ms"), 2),
        CPU_CHUNK,
        _beside_peer(CPU_CHUNK),
    ),
    "crowd": (
        CHUNKS,
        *DELAYS,
        CPU_CHUNK,
        _beside_peer(CPU_CHUNK),
        Column("KiB/stream", field("kib_per_connection"), 1),
    ),
    "idle": (
        Column("p99 ms alone", field("quiet_p99_ms"), 2),
        Column("p99 ms beside them", field("p99_ms"), 2),
        Column("times as long", growth, 2),
        Column("1 MB prompts/s", request_rate, 1),
        Column("p50 ms of 1 MB prompts", field("p50_ms"), 1),
        Column("KiB/idle client", field("kib_per_connection"), 1),
    ),
    "workers": (
        REQUESTS,
        CPU_REQUEST,
        Column("busiest, % of CPU", busiest_share),
        Column("requests/s with a core each", unhindered_rate, ranged=True),
    ),
}


def _cell(column: Column, results: list[Result], by_target: dict[str, list[Result]]) -> str:
    if column.base == "direct":
        value = added(results, by_target.get("direct", []), column.figure)
    elif column.base == "peer":
        value = ratio(results, by_target.get(PEER, []), column.figure)
    else:
        value = median(results, column.figure)
    if value is None:
        return "-"
    text = f"{value:,.{column.digits}f}"
    if column.ranged and len(results) > 1:
        every = [found for result in results if (found := column.figure(result)) is not None]
        text += f" ({min(every):,.0f} to {max(every):,.0f})"
    return text


def _row(name: str, trial: str, by_target: dict[str, list[Result]]) -> str:
    results = by_target[name]
    cells = [_cell(column, results, by_target) for column in COLUMNS[trial]]
    busy = statistics.median(result.bench_busy for result in results)
    foreign = max(result.foreign for result in results)
    steal = max(result.steal for result in results)
    errors = sum(result.errors for result in results)
    noise = f"{100 * foreign:.0f}/{100 * steal:.0f}"
    shown = f"{errors} ({next(result.first_error for result in results if result.errors)})" if errors else "0"
    return "| " + " | ".join([name + marks(results), *cells, f"{100 * busy:.0f}", noise, shown]) + " |"


def _table(title: str, trial: str, by_target: dict[str, list[Result]]) -> list[str]:
    titles = (column.title for column in COLUMNS[trial])
    heads = ["target", *titles, "bench %", "foreign/steal %", "errors"]
    lines = [f"### {title}", "", "| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    return [*lines, *(_row(name, trial, by_target) for name, results in by_target.items() if results), ""]


def markdown(outcome: dict[str, Any], titles: dict[str, str]) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in outcome["machine"].items()), ""]
    for target, found in outcome.get("versions", {}).items():
        if found:
            lines.append(f"{target}: " + ", ".join(f"{name} {version}" for name, version in found.items()))
    lines += [f"{target}: not measured ({why})" for target, why in outcome.get("not_measured", {}).items()]
    for name, by_target in outcome.get("results", {}).items():
        lines += ["", *_table(titles[name], name, by_target)] if any(by_target.values()) else []
    if "two_loops" in outcome:
        times = f"{outcome['two_loops']:.2f}"
        lines += ["", f"Two processes with a loop of Python, a core each, do {times} × the work of one here."]
    if outcome.get("results"):
        lines += ["", LEGEND]
    if "soak" in outcome:
        lines += _soak(outcome["soak"])
    return "\n".join(lines)


def _soak(soak: dict[str, Any]) -> list[str]:
    lines = [soak["target"], "", "| streams | resident MiB |", "|--:|--:|"]
    lines += [f"| {done:,} | {mib:.1f} |" for done, mib in soak["resident_mib"]]
    slope = soak["kib_per_request"]
    if slope is not None:
        lines += ["", f"slope after the first step: {slope * 1000:.2f} KiB per 1,000 requests"]
    return lines
