"""
Measures the gateway and its peers in one run on one machine.

    python -m tests.bench [--peers litellm,vllm-router] [--quick] [--out FILE.json]
    python -m tests.bench --soak 100000          # memory over this many streamed requests

The target has core 0 to itself; the fake backend and the load generator share core 1. Each repetition starts
every target anew and measures it alone, in a new random order. The table shows medians with their ranges.
*added* is the target's median minus that of `direct`; it includes two cross-core wake-ups that `direct` does
not have. `*` marks a row in which backend and load used 90 % of their core: then the benchmark is the
bottleneck, and CPU per request or chunk is the column to compare. `!` marks a row that other processes
disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.bench import machine, proc, report, targets
from tests.bench.load import Job, Result
from tests.bench.targets import OWN, PEERS, ROOT, TARGETS, Target
from tests.fakes.fault import Fault
from tests.redis import real_redis

TARGET_CORE, BENCH_CORE = 0, 1
BACKEND_PORT, TARGET_PORT = 9471, 9472
CHAT = "/v1/chat/completions"
TOKENS = 200
PROMPT = (
    "A small bakery sells three kinds of bread. On Monday it sold 24 rye loaves, 36 wheat loaves and 18 "
    "spelt loaves. A rye loaf costs 4.20, a wheat loaf 3.60 and a spelt loaf 5.10. On Tuesday it sold a "
    "quarter fewer rye loaves, a third more wheat loaves and the same number of spelt loaves, but every "
    "loaf cost 10 percent less because of a spring sale. The flour for one loaf costs 0.90, the oven uses "
    "12.50 of gas each day, and the two bakers together earn 260 a day. First, work out the income of "
    "each day. Then work out the profit of each day after flour, gas and wages. Finally, say on which day "
    "the bakery earned more, by how much, and whether the sale was worth it. Show the steps of your "
    "calculation in short sentences."
)
SYSTEM = (
    "You are a careful assistant. Answer in plain English and check each number before you write it down."
)


class Trial(msgspec.Struct, frozen=True):
    """One kind of measurement: the load, and how the backend responds."""

    name: str
    about: str
    connections: int
    seconds: float
    fault: Fault
    stream: bool = False
    warmup_s: float = 0.5
    spread_s: float = 0.0

    def job(self, target: Target, pids: list[int], backend_pid: int, *, quick: bool) -> Job:
        body: dict[str, Any] = {
            "model": targets.MODEL,
            "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}],
            "temperature": 0.6,
            "top_p": 0.95,
            "max_tokens": 1024,
        }
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return Job(
            port=TARGET_PORT if target.command else BACKEND_PORT,
            path=CHAT,
            headers=target.headers,
            body=json.dumps(body),
            connections=self.connections,
            stream=self.stream,
            stamped=self.fault.stamp,
            expected=(self.fault.tokens or 0) if self.stream else 0,
            warmup_s=self.warmup_s,
            seconds=self.seconds / 3 if quick else self.seconds,
            spread_s=self.spread_s,
            target_pids=pids,
            bench_pids=[backend_pid],
            core=BENCH_CORE,
        )


PLAIN = Fault(tokens=TOKENS, reasoning=0)
TRIALS = {
    trial.name: trial
    for trial in (
        Trial("requests", "whole answers, 32 connections", 32, 3, Fault(tokens=64, reasoning=0)),
        Trial("latency", "whole answers, 1 connection", 1, 2, Fault(tokens=64, reasoning=0)),
        Trial("stream", f"{TOKENS} chunks as fast as possible, 16 streams", 16, 3, PLAIN, stream=True),
        Trial(
            "paced", f"{TOKENS} chunks at 20 ms, 200 streams", 200, 4,
            Fault(tokens=TOKENS, reasoning=0, pace_ms=20, stamp=True), stream=True, warmup_s=1, spread_s=1,
        ),
    )
}  # fmt: skip


class Bench:
    """One session: the backend, and the measurements taken against it."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self._folder = folder
        self._quick = quick
        self._url = f"http://127.0.0.1:{BACKEND_PORT}"
        self._servers = ExitStack()

    def __enter__(self) -> Self:
        self._redis = self._servers.enter_context(real_redis())
        os.sched_setaffinity(self._redis.process.pid, {BENCH_CORE})
        command = [sys.executable, "-m", "tests.fakes.backend", "--light", "--port", str(BACKEND_PORT)]
        log = self._folder / "backend.log"
        with log.open("wb") as sink:
            self._backend = targets.spawn(command, core=BENCH_CORE, log=sink, environment={})
        targets.wait_ready(self._backend, self._url + "/health", log)
        return self

    def __exit__(self, *_: object) -> None:
        targets.stop(self._backend)
        self._servers.close()

    def running(self, target: Target) -> Any:
        return targets.running(
            target,
            port=TARGET_PORT,
            upstream=self._url,
            redis=self._redis.url,
            core=TARGET_CORE,
            folder=self._folder,
        )

    def measure(
        self, trial: Trial, target: Target, pids: list[int], *, requests: int | None = None
    ) -> Result:
        body = msgspec.json.encode(trial.fault)
        with urllib.request.urlopen(self._url + "/fake/default", body, timeout=5):
            pass
        job = trial.job(target, pids, self._backend.pid, quick=self._quick)
        job.requests = requests
        command = targets.pinned([sys.executable, "-m", "tests.bench.load"], BENCH_CORE)
        with (self._folder / "load.log").open("wb") as errors:
            load = subprocess.run(
                command,
                input=msgspec.json.encode(job),
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                check=False,
            )
        if load.returncode:
            raise RuntimeError((self._folder / "load.log").read_text()[-2000:])
        return msgspec.json.decode(load.stdout, type=Result)


def compare(bench: Bench, names: list[str], trials: list[Trial], repetitions: int) -> dict[str, Any]:
    """Run all trials on all targets. Returns {trial: {target: [result of each repetition]}}."""
    found: dict[str, Any] = {trial.name: {name: [] for name in names} for trial in trials}
    for repetition in range(repetitions):
        for name in random.sample(names, len(names)):
            print(f"repetition {repetition + 1}/{repetitions}: {name}", file=sys.stderr, flush=True)
            with bench.running(TARGETS[name]) as pids:
                for trial in trials:
                    found[trial.name][name].append(bench.measure(trial, TARGETS[name], pids))
    return found


def soak(bench: Bench, total: int, step: int = 10_000) -> list[tuple[int, float]]:
    """Resident memory of the gateway in MiB, before and after every `step` short streams."""
    target = TARGETS["thinkmeter"]
    trial = Trial("soak", "short streams", 16, 0, Fault(tokens=8, reasoning=0), stream=True, warmup_s=0)
    with bench.running(target) as pids:
        points = [(0, proc.resident_mib(pids))]
        for done in range(step, total + 1, step):
            result = bench.measure(trial, target, pids, requests=step)
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


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default="", help=f"comma-separated: {', '.join(PEERS)}")
    parser.add_argument("--targets", default=",".join(OWN), help="which of our own to measure")
    parser.add_argument("--trials", default=",".join(TRIALS), help=f"comma-separated: {', '.join(TRIALS)}")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repetition, a third of the time")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="also measure another checkout")
    parser.add_argument("--soak", type=int, metavar="N", help="only the memory soak, over N streams")
    parser.add_argument("--out", type=Path, help="also write everything as JSON")
    chosen = parser.parse_args()
    chosen.names = [name for name in f"{chosen.targets},{chosen.peers}".split(",") if name]
    if chosen.against:
        others = targets.before(chosen.against)
        TARGETS.update({target.name: target for target in others})
        chosen.names += [target.name for target in others]
    for unknown in [*(set(chosen.names) - set(TARGETS)), *(set(chosen.trials.split(",")) - set(TRIALS))]:
        parser.error(f"unknown: {unknown}")
    return chosen


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
            points = soak(bench, chosen.soak)
            outcome["soak"] = {"resident_mib": points, "kib_per_request": slope(points)}
        else:
            failures = {name: why for name in chosen.names if (why := targets.install(TARGETS[name]))}
            names = [name for name in chosen.names if name not in failures]
            outcome["versions"] = {name: targets.versions(TARGETS[name]) for name in names}
            outcome["not_measured"] = failures
            trials = [TRIALS[name] for name in chosen.trials.split(",")]
            outcome["results"] = compare(bench, names, trials, 1 if chosen.quick else chosen.repetitions)
    print(report.markdown(outcome, {trial.name: trial.about for trial in TRIALS.values()}))
    if chosen.out:
        chosen.out.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=1) + b"\n")


if __name__ == "__main__":
    main()
