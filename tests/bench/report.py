"""The results as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.bench.load import Result

LIMITED = 0.90  # share of their core above which backend and load are the bottleneck
NOISY = 0.10  # share of a core that other processes took
STOLEN = 0.05  # share of the machine that the host took

LEGEND = (
    "Medians (lowest to highest repetition). bench %: use of the core that backend and load share. "
    "foreign/steal %: worst share of a core taken by other processes, of the machine by its host. "
    f"*: bench at {LIMITED:.0%} or more, so it is the limit. "
    f"!: foreign {NOISY:.0%} or steal {STOLEN:.0%} or more."
)


class Column(NamedTuple):
    title: str
    value: Callable[[Result], float | None]
    digits: int = 0
    minus_direct: bool = False
    ranged: bool = False


def _per_request(result: Result) -> float | None:
    return result.target_cpu_s * 1e6 / result.requests if result.requests else None


def _per_chunk(result: Result) -> float | None:
    return result.target_cpu_s * 1e6 / result.chunks if result.chunks else None


def _ms(name: str) -> Callable[[Result], float | None]:
    return lambda result: getattr(result, name)


REQUEST = (
    Column("requests/s", lambda result: result.requests / result.seconds, ranged=True),
    Column("p50 ms", _ms("p50_ms"), 3),
    Column("p99 ms", _ms("p99_ms"), 3),
)
CHUNKS = Column("chunks/s", lambda result: result.chunks / result.seconds, ranged=True)
COLUMNS = {
    "requests": (*REQUEST, Column("CPU µs/request", _per_request)),
    "latency": (
        *REQUEST,
        Column("added p50 ms", _ms("p50_ms"), 3, minus_direct=True),
        Column("added p99 ms", _ms("p99_ms"), 3, minus_direct=True),
        Column("CPU µs/request", _per_request),
    ),
    "stream": (
        CHUNKS,
        Column("chunks/read", lambda result: result.chunks / result.reads if result.reads else None, 1),
        Column("CPU µs/chunk", _per_chunk, 1),
    ),
    "paced": (
        CHUNKS,
        Column("delay p50 ms", _ms("delay_p50_ms"), 3),
        Column("delay p99 ms", _ms("delay_p99_ms"), 2),
        Column("added p50 ms", _ms("delay_p50_ms"), 3, minus_direct=True),
        Column("added p99 ms", _ms("delay_p99_ms"), 2, minus_direct=True),
        Column("first byte p50 ms", _ms("first_byte_p50_ms"), 2),
        Column("CPU µs/chunk", _per_chunk, 1),
    ),
}


def _median(results: list[Result], column: Column) -> float | None:
    values = [value for result in results if (value := column.value(result)) is not None]
    return statistics.median(values) if values else None


def _cell(results: list[Result], column: Column, direct: list[Result]) -> str:
    value = _median(results, column)
    base = _median(direct, column) if column.minus_direct else 0.0
    if value is None or base is None or (column.title.startswith("CPU") and not value):
        return "-"
    text = f"{value - base:,.{column.digits}f}"
    if column.ranged and len(results) > 1:
        every = [found for result in results if (found := column.value(result)) is not None]
        text += f" ({min(every):,.0f} to {max(every):,.0f})"
    return text


def _marks(results: list[Result]) -> str:
    limited = statistics.median(result.bench_busy for result in results) >= LIMITED
    noisy = any(result.foreign >= NOISY or result.steal >= STOLEN for result in results)
    return (" *" if limited else "") + (" !" if noisy else "")


def _row(name: str, results: list[Result], columns: tuple[Column, ...], direct: list[Result]) -> str:
    cells = [_cell(results, column, direct) for column in columns]
    busy = statistics.median(result.bench_busy for result in results)
    foreign = max(result.foreign for result in results)
    steal = max(result.steal for result in results)
    errors = sum(result.errors for result in results)
    noise = f"{100 * foreign:.0f}/{100 * steal:.0f}"
    shown = f"{errors} ({next(result.first_error for result in results if result.errors)})" if errors else "0"
    return "| " + " | ".join([name + _marks(results), *cells, f"{100 * busy:.0f}", noise, shown]) + " |"


def _table(title: str, name: str, by_target: dict[str, list[Result]]) -> list[str]:
    columns = COLUMNS[name]
    heads = ["target", *(column.title for column in columns), "bench %", "foreign/steal %", "errors"]
    lines = [f"### {title}", "", "| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    direct = by_target.get("direct", [])
    return [
        *lines,
        *(_row(target, results, columns, direct) for target, results in by_target.items() if results),
        "",
    ]


def markdown(outcome: dict[str, Any], titles: dict[str, str]) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in outcome["machine"].items()), ""]
    for target, found in outcome.get("versions", {}).items():
        if found:
            lines.append(f"{target}: " + ", ".join(f"{name} {version}" for name, version in found.items()))
    lines += [f"{target}: not measured ({why})" for target, why in outcome.get("not_measured", {}).items()]
    for name, by_target in outcome.get("results", {}).items():
        lines += ["", *_table(titles[name], name, by_target)]
    if outcome.get("results"):
        lines += ["", LEGEND]
    if "soak" in outcome:
        lines += _soak(outcome["soak"])
    return "\n".join(lines)


def _soak(soak: dict[str, Any]) -> list[str]:
    lines = ["| streams | resident MiB |", "|--:|--:|"]
    lines += [f"| {done:,} | {mib:.1f} |" for done, mib in soak["resident_mib"]]
    slope = soak["kib_per_request"]
    if slope is not None:
        lines += ["", f"slope after the first step: {slope * 1000:.2f} KiB per 1,000 requests"]
    return lines
