"""Measures the evidence store with many rows: `python -m tests.bench.evidence [--rows N] [--postgres]`."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store
from gateway.evidence.exporting.files import write_jsonl, write_parquet
from gateway.evidence.exporting.selection import Selection, table_named
from gateway.evidence.reading import store_bytes, summary
from gateway.evidence.rows import Row
from gateway.evidence.writer import EvidenceWriter
from tests.bench.machine import describe
from tests.evidence.made import NOW, decision, feedback
from tests.evidence.postgres import RealPostgres, binaries

RATED = 0.1
"""Share of decisions with feedback."""
_RUNGS = json.dumps(
    {
        "correct": [round(0.4 + i / 40, 3) for i in range(13)],
        "tokens": [round(50 * 1.5**i, 1) for i in range(13)],
    }
).encode()
"""Estimates of thirteen rungs, as long as they are in use."""
_FEATURES = random.Random(0).randbytes(512)


def rows(number: int) -> Iterator[Row]:
    """Decisions of 90 days by three models, with feedback on some of them."""
    rng = random.Random(1)
    for at in range(number):
        rung = rng.randrange(13)
        yield decision(
            at,
            id=f"{rng.getrandbits(96):024x}",
            at=NOW - (number - at) * 90 * 86_400 / number,
            model=rng.choice(["qwen3-8b", "qwen3-32b", "gpt-oss-120b"]),
            arm="holdout" if rng.random() < 0.05 else "adaptive",
            rung=rung,
            completion_tokens=rng.randrange(50, 4_000),
            rungs=_RUNGS,
            features=_FEATURES,
        )


def _with_feedback(decisions: Iterator[Row]) -> Iterator[Row]:
    rng = random.Random(2)
    for row in decisions:
        yield row
        if rng.random() < RATED:
            yield feedback(decision=row.id, at=row.at, score=float(rng.random() < 0.7))


def _timed(action: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of CPU time in this thread and in the processes that it started."""
    clock, cpu = time.perf_counter(), time.thread_time() + _of_children()
    action()
    return round(time.perf_counter() - clock, 2), round(time.thread_time() + _of_children() - cpu, 2)


def _of_children() -> float:
    """Seconds of CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def put_cost(settings: EvidenceSettings, rounds: int = 20) -> float:
    """Microseconds of CPU time of the caller per `put`, median of the rounds, while rows are written."""
    writer = EvidenceWriter(settings)
    writer.start()
    writer.ready(60)
    made = list(rows(2_000))
    costs = []
    for _ in range(rounds):
        while writer.waiting:
            time.sleep(0.01)
        begun = time.thread_time_ns()
        for row in made:
            writer.put(row)
        costs.append((time.thread_time_ns() - begun) / 1_000 / len(made))
    writer.close(60)
    return round(sorted(costs)[len(costs) // 2], 3)


def fill(settings: EvidenceSettings, number: int) -> dict[str, float]:
    """Write the rows as fast as the store takes them."""
    writer = EvidenceWriter(settings)
    writer._next_look = time.monotonic() + 86_400  # nothing is deleted meanwhile
    spent: list[float] = []
    run = writer._run

    def counted() -> None:
        begun = time.thread_time()
        run()
        spent.append(time.thread_time() - begun)

    writer._thread._target = counted  # type: ignore[attr-defined]
    writer.start()
    writer.ready(60)
    begun = time.perf_counter()
    for row in _with_feedback(rows(number)):
        while writer.waiting > settings.queue - 10:
            time.sleep(0.001)
        writer.put(row)
    writer.close(600)
    seconds = time.perf_counter() - begun
    written = writer.written.total()
    return {"rows_per_s": round(written / seconds), "cpu_us_per_row": round(spent[0] / written * 1e6, 1)}


def measure(settings: EvidenceSettings, number: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"put_us": put_cost(settings), **fill(settings, number)}
    engine = open_store(settings)
    found["bytes_per_decision"] = round(store_bytes(engine) / number)
    begin, end = NOW - 100 * 86_400, NOW + 1
    found["summary_s"] = _timed(lambda: summary(engine, begin, end))
    table = table_named("decisions")
    for name, write in (("jsonl", write_jsonl), ("parquet", write_parquet)):
        path = folder / f"export.{name}"
        with path.open("wb") as file:
            found[f"{name}_s"] = _timed(
                lambda write=write, file=file: write(engine, table, Selection(begin, end), file)
            )
        found[f"{name}_mib"] = round(path.stat().st_size / 2**20)
    engine.dispose()
    for name, who in (("peak_mib", resource.RUSAGE_SELF), ("largest_child_mib", resource.RUSAGE_CHILDREN)):
        found[name] = round(resource.getrusage(who).ru_maxrss / 1024)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--postgres", action="store_true", help="A server of its own instead of SQLite.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        settings = EvidenceSettings(file=f"{folder}/evidence.db")
        if options.postgres:
            path = binaries()
            assert path, "PostgreSQL is not installed"
            server = RealPostgres(path)
            stack.callback(server.remove)
            settings = EvidenceSettings(url=server.create("bench"))
        result = measure(settings, options.rows, Path(folder))
    print(json.dumps({"machine": describe(), "rows": options.rows, **result}, indent=1))


if __name__ == "__main__":
    main()
