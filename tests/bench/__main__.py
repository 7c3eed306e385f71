"""
Measures the gateway, its parts and its peers in one run on one machine.

    python -m tests.bench [--peers [litellm,vllm-router]] [--quick] [--out FILE.json]
    python -m tests.bench --soak 100000 --targets thinkmeter-all   # memory over this many streamed requests

Without `--peers`, the peers that are installed are measured; `--peers` alone installs and measures all. The
target has core 0 to itself; the fake backend, Redis and the load generator share core 1. Each repetition
starts every target anew and measures it alone, in a new random order. The tables show medians with their
ranges. *added* is the target's median minus that of `direct`; it includes two cross-core wake-ups that
`direct` does not have. `*` marks a row in which backend and load used 90 % of their core: then the benchmark
is the bottleneck, and CPU per request or chunk is the column to compare. `!` marks a row that other processes
disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tests.bench import goals, machine, report, summary, targets
from tests.bench.install import install, installed, versions
from tests.bench.jobs import Result
from tests.bench.peers import PEERS
from tests.bench.session import Bench
from tests.bench.soak import slope, soak
from tests.bench.targets import OWN, Target
from tests.bench.trials import TRIALS, WARM_UP, WARM_UP_REQUESTS, Trial

TARGETS = OWN | PEERS


def compare(
    bench: Bench, names: list[str], trials: list[Trial], repetitions: int, failures: dict[str, str]
) -> dict[str, Any]:
    """
    Run the trials on the targets. Returns {trial: {target: [result of each repetition]}}.

    A peer that fails is left out from then on, with the reason in `failures`.
    """
    found: dict[str, Any] = {trial.name: {name: [] for name in names} for trial in trials}
    for repetition in range(repetitions):
        for name in random.sample(names, len(names)):
            for group in groups(TARGETS[name], trials):
                if name in failures:
                    break
                about = ", ".join(trial.name for trial in group)
                print(f"{repetition + 1}/{repetitions}: {name}: {about}", file=sys.stderr, flush=True)
                try:
                    for trial, result in measured(bench, TARGETS[name], group):
                        found[trial.name][name].append(result)
                except RuntimeError as failed:
                    if name not in PEERS:
                        raise
                    failures[name] = str(failed).strip().splitlines()[-1]
    return found


def groups(target: Target, trials: list[Trial]) -> list[list[Trial]]:
    """The trials that are for the target, those together that share one process of it."""
    mine = [trial for trial in trials if trial.fits(target)]
    together = [trial for trial in mine if not trial.fresh]
    return [group for group in (together, *([trial] for trial in mine if trial.fresh)) if group]


def measured(bench: Bench, target: Target, group: list[Trial]) -> Iterator[tuple[Trial, Result]]:
    """Start the target and run the trials."""
    with bench.running(target) as pids:
        bench.measure(WARM_UP, target, pids, requests=WARM_UP_REQUESTS)
        for trial in group:
            yield trial, bench.measure(trial, target, pids)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="?", const=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--targets", help=f"of {', '.join(OWN)}")
    parser.add_argument("--trials", default=",".join(TRIALS), help=f"of {', '.join(TRIALS)}")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repetition, a third of the time")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="also measure another checkout")
    parser.add_argument("--soak", type=int, metavar="N", help="only the memory soak, over N streams")
    parser.add_argument("--out", type=Path, help="also write everything as JSON")
    chosen = parser.parse_args()
    if chosen.against:
        TARGETS.update({target.name: target for target in targets.before(chosen.against)})
    chosen.names = names(chosen.targets, chosen.peers, against=bool(chosen.against))
    chosen.trials = chosen.trials.split(",")
    for unknown in [*(set(chosen.names) - set(TARGETS)), *(set(chosen.trials) - set(TRIALS))]:
        parser.error(f"unknown: {unknown}")
    return chosen


def names(own: str | None, peers: str | None, *, against: bool) -> list[str]:
    """
    The targets to measure: by default, all of our own and the peers that are installed.

    against: also ours as the other checkout has them
    """
    present = [name for name, target in PEERS.items() if installed(target)] if own is None else []
    ours = own.split(",") if own is not None else list(OWN)
    before = [name.replace("thinkmeter", "before") for name in ours if against and "thinkmeter" in name]
    return list(filter(None, [*ours, *before, *(present if peers is None else peers.split(","))]))


def main() -> None:
    chosen = options()
    if (os.cpu_count() or 1) < 2:
        sys.exit("the bench needs two cores")
    outcome: dict[str, Any] = {"machine": machine.describe()}
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Bench(Path(folder), quick=chosen.quick) as bench,
    ):
        if chosen.soak:
            name = chosen.names[0] if chosen.targets else "thinkmeter-all"
            points = soak(bench, TARGETS[name], chosen.soak)
            outcome["soak"] = {"target": name, "resident_mib": points, "kib_per_request": slope(points)}
        else:
            failures = {name: why for name in chosen.names if (why := install(TARGETS[name]))}
            ready = [name for name in chosen.names if name not in failures]
            outcome["versions"] = {name: versions(TARGETS[name]) for name in ready}
            outcome["not_measured"] = failures
            trials = [TRIALS[name] for name in chosen.trials]
            times = 1 if chosen.quick else chosen.repetitions
            outcome["results"] = compare(bench, ready, trials, times, failures)
            if any(outcome["results"].get("workers", {}).values()):
                outcome["two_loops"] = machine.two_loops()
    print(report.markdown(outcome, {trial.name: trial.about for trial in TRIALS.values()}))
    if outcome.get("results"):
        print("", summary.markdown(outcome["results"]), "", goals.markdown(outcome["results"]), sep="\n")
    if chosen.out:
        chosen.out.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=1) + b"\n")


if __name__ == "__main__":
    main()
