"""
Profiles a target under one trial's load, with py-spy: `python -m tests.bench.profiling --help`.

Prints each function's share of the samples of the event loop's thread: *self* is time in the function, and
*inclusive* also time in what it calls. py-spy is installed from PyPI below `.bench`. It samples a process
that it has not started, which needs root or `kernel.yama.ptrace_scope` 0. Samples slow the target somewhat:
take shares from here, and times from `make bench`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tests.bench.figures import cpu_per_chunk, cpu_per_request
from tests.bench.install import install
from tests.bench.session import BENCH_CORE, Bench
from tests.bench.targets import HOMES, OWN, Target, pinned
from tests.bench.trials import TRIALS, WARM_UP, WARM_UP_REQUESTS

PY_SPY = Target(name="py-spy", about="sampling profiler", packages=["py-spy"])
PER_SECOND = 200
LOOP = "MainThread"
ENTRY = "Runner.run (asyncio/runners.py)"
LINE = re.compile(r":\d+\)$")


class Shares(msgspec.Struct):
    """Samples by function."""

    own: Counter[str]
    inclusive: Counter[str]
    total: int


def shares(stacks: Iterable[str]) -> Shares:
    """Count the samples of the event loop's thread in py-spy's raw format: `thread;frame;frame count`."""
    found = Shares(Counter(), Counter(), 0)
    for line in stacks:
        stack, _, count = line.rstrip().rpartition(" ")
        thread, *frames = (LINE.sub(")", frame) for frame in stack.split(";"))
        if LOOP not in thread or not frames:
            continue
        if ENTRY in frames:
            del frames[: frames.index(ENTRY)]  # the command line above it is in every sample
        found.total += int(count)
        found.own[frames[-1]] += int(count)
        found.inclusive.update(dict.fromkeys(frames, int(count)))
    return found


def table(title: str, counts: Counter[str], total: int, rows: int) -> str:
    lines = [f"{100 * count / total:5.1f} %  {name}" for name, count in counts.most_common(rows)]
    return "\n".join([f"{title} share of {total:,} samples", *lines, ""])


def record(bench: Bench, target: Target, trial_name: str, seconds: float, raw: Path) -> str:
    """Profile into the file. Returns what the load measured meanwhile."""
    trial = msgspec.structs.replace(TRIALS[trial_name], seconds=seconds)
    delay = trial.warmup_s + trial.spread_s
    with bench.running(target) as pids:
        bench.measure(WARM_UP, target, pids, requests=WARM_UP_REQUESTS)
        spy = [str(HOMES / "py-spy/bin/py-spy"), "record", "--rate", str(PER_SECOND), "--threads"]
        spy += ["--duration", str(int(delay + seconds)), "--format", "raw", "--output", str(raw)]
        spy += ["--pid", str(pids[0])]
        with subprocess.Popen(
            pinned(spy, BENCH_CORE), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            result = bench.measure(trial, target, pids)
            _, said = process.communicate()
        if process.returncode:
            sys.exit(f"py-spy: {said.strip()}")
    per_request, per_chunk = cpu_per_request(result), cpu_per_chunk(result)
    text = f"{result.requests:,} requests, {result.chunks:,} chunks, {result.errors} errors"
    text += f", {per_request:,.0f} µs of CPU per request" if per_request else ""
    return text + (f", {per_chunk:,.1f} per chunk" if per_chunk else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--target", default="thinkmeter-all", choices=[name for name in OWN if name != "direct"]
    )
    parser.add_argument("--trial", default="requests", choices=TRIALS)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rows", type=int, default=40, help="of each table")
    parser.add_argument("--checkout", type=Path, help="profile the gateway of another checkout")
    chosen = parser.parse_args()
    if why := install(PY_SPY):
        sys.exit(f"py-spy: {why}")
    target = OWN[chosen.target]
    if chosen.checkout:
        target = msgspec.structs.replace(target, checkout=chosen.checkout.resolve())
    with tempfile.TemporaryDirectory(prefix="profile-") as folder, Bench(Path(folder), quick=False) as bench:
        raw = Path(folder) / "stacks"
        print(record(bench, target, chosen.trial, chosen.seconds, raw) + "\n")
        found = shares(raw.read_text().splitlines())
    print(table("self", found.own, found.total, chosen.rows))
    print(table("inclusive", found.inclusive, found.total, 2 * chosen.rows))


if __name__ == "__main__":
    main()
