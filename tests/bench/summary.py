"""One table of all targets with the figures that count, for docs/benchmarks.md."""

from __future__ import annotations

from typing import NamedTuple

from tests.bench.figures import (
    Figure,
    added,
    chunk_rate,
    cpu_per_chunk,
    cpu_per_request,
    field,
    median,
    ratio,
    request_rate,
)
from tests.bench.jobs import Result
from tests.bench.report import PEER


class Fact(NamedTuple):
    title: str
    trial: str
    figure: Figure
    digits: int
    compared: bool = False
    """Whether the ratio to the peer follows."""
    minus_direct: bool = False


FACTS = (
    Fact("requests/s", "requests", request_rate, 0, compared=True),
    Fact("CPU µs/request", "requests", cpu_per_request, 0, compared=True),
    Fact("added p50 ms, 1 connection", "latency", field("p50_ms"), 2, minus_direct=True),
    Fact("chunks/s, unpaced", "stream", chunk_rate, 0, compared=True),
    Fact("CPU µs/chunk, paced", "paced", cpu_per_chunk, 1, compared=True),
    Fact("added p99 ms, 2,000 streams", "crowd", field("delay_p99_ms"), 1, minus_direct=True),
    Fact("KiB/stream", "crowd", field("kib_per_connection"), 0),
)


def markdown(results: dict[str, dict[str, list[Result]]]) -> str:
    """A row for each target; in brackets, the ratio to the peer. Empty without a trial of the table."""
    facts = [fact for fact in FACTS if fact.trial in results]
    if not facts:
        return ""
    names = dict.fromkeys(name for fact in facts for name, found in results[fact.trial].items() if found)
    lines = [
        "| target | " + " | ".join(fact.title for fact in facts) + " |",
        "|---" + "|--:" * len(facts) + "|",
    ]
    for name in names:
        cells = [_cell(fact, name, results[fact.trial]) for fact in facts]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"In brackets: × {PEER}."])


def _cell(fact: Fact, name: str, found: dict[str, list[Result]]) -> str:
    mine = found.get(name, [])
    value = (
        added(mine, found.get("direct", []), fact.figure) if fact.minus_direct else median(mine, fact.figure)
    )
    if value is None or (name == "direct" and fact.minus_direct):
        return "-"
    beside = ratio(mine, found.get(PEER, []), fact.figure) if fact.compared else None
    return f"{value:,.{fact.digits}f}" + (f" ({beside:.2f})" if beside is not None and name != PEER else "")
