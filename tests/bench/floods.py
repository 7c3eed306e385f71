"""
Measures memory and waiting while clients flood the gateway.

    python -m tests.bench.floods [--only NAME,NAME] [--seconds 8] [--out FILE.json]

Each flood gets a gateway of its own with default limits, the trained head `general`, keys, budgets and the
access log in a file. The gateway has core 0 to itself. The flood, its backend, another client (`prober`) and
that client's backend are processes of their own on core 1. The flood and its backend run at a lower priority,
so that the client's figures are about the gateway. The client asks the quiet gateway first, and again during
the flood.

Peak is the most resident memory since the flood began (VmHWM). `!` marks a flood during which other processes
took a tenth of the gateway's core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.bench import flood_backend, machine, proc, targets
from tests.bench.flood_clients import FLOOD_KEY, FLOODS, SPENT_KEY, Flood, holder_key

GATEWAY_CORE, OTHER_CORE = 0, 1
PROBER_KEY, PROBER_MODEL = "sk-prober", "fake"
PROBER_FAULT = '{"tokens": 64, "reasoning": 0}'
QUIET_S, AFTER_S = 3.0, 3.0
MOST_MIB, MOST_P99_MS, MOST_OTHER = 512, 50, 0.1
GENTLE = ["nice", "-n", "10"]


@dataclass(frozen=True)
class Waits:
    """How long requests waited, in milliseconds."""

    count: int
    p50: float
    p99: float
    longest: float
    failed: int
    """Requests that got another status than 200, or none."""


@dataclass(frozen=True)
class Memory:
    """Resident memory, in MiB."""

    before: float
    peak: float
    after: float


@dataclass(frozen=True)
class Outcome:
    """What one flood did."""

    memory: Memory
    quiet: Waits
    flooded: Waits
    sent: dict[str, int]
    gateway_share: float
    """Of a core, what the gateway and its Redis used during the flood."""
    other_share: float
    """Of the same core, what other processes used and what the host withheld."""


class Clock(NamedTuple):
    """Seconds that have passed, that the gateway has used, and that its core has worked or been withheld."""

    wall: float
    gateway: float
    core: float

    @classmethod
    def now(cls, pids: list[int]) -> Self:
        core = proc.cores()[GATEWAY_CORE]
        return cls(time.monotonic(), proc.cpu_seconds(pids), core.busy + core.steal)


def shares(first: Clock, last: Clock) -> tuple[float, float]:
    """Of the gateway's core: the share of the gateway, and that of everybody else."""
    wall, gateway, core = (after - before for before, after in zip(first, last, strict=True))
    return gateway / wall, max(0.0, core - gateway) / wall


def summary(waits: list[float], statuses: dict[str, int]) -> Waits:
    """waits: in seconds, at least one."""
    ordered = sorted(waits)
    failed = sum(statuses.values()) - statuses.get("200", 0)
    p50, p99 = (1e3 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
    return Waits(len(ordered), p50, p99, ordered[-1] * 1e3, failed)


def memory_mib(status: str, field: str) -> float:
    """A field of /proc/PID/status, such as VmRSS."""
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def verdict(outcome: Outcome) -> str:
    """What passes its bound, or `ok`."""
    broken = []
    if outcome.memory.peak > MOST_MIB:
        broken.append(f"over {MOST_MIB} MiB")
    if outcome.flooded.p99 > MOST_P99_MS:
        broken.append(f"p99 over {MOST_P99_MS} ms")
    if outcome.flooded.failed:
        broken.append(f"{outcome.flooded.failed} failed")
    return (", ".join(broken) or "ok") + (" !" if outcome.other_share > MOST_OTHER else "")


def markdown(outcomes: dict[str, Outcome]) -> str:
    """The table."""
    lines = [
        "| flood | RSS before → peak → after, MiB | quiet: p50 / p99 / max, ms | flooded, ms | |",
        "|---|--:|--:|--:|---|",
    ]
    for name, outcome in outcomes.items():
        memory = outcome.memory
        cells = (
            FLOODS[name].about,
            f"{memory.before:.0f} → {memory.peak:.0f} → {memory.after:.0f}",
            _three(outcome.quiet),
            _three(outcome.flooded),
            verdict(outcome),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _three(waits: Waits) -> str:
    return f"{waits.p50:.1f} / {waits.p99:.0f} / {waits.longest:.0f}"


def configuration(folder: Path, port: int, flood: Flood, backends: dict[str, int]) -> dict[str, Any]:
    """backends: the port behind each model."""
    keys = {"flood": FLOOD_KEY, "spent": SPENT_KEY, "prober": PROBER_KEY}
    keys |= {f"holder-{number}": holder_key(number) for number in range(flood.holders)}
    return {
        "server": {"host": "127.0.0.1", "port": port},
        "head": "general",
        "models": {
            name: {"family": "qwen3", "replicas": [{"name": name, "url": f"http://127.0.0.1:{behind}"}]}
            for name, behind in backends.items()
        },
        "keys": [{"name": name, "key": key} for name, key in keys.items()],
        "redis": {"directory": str(folder / "redis")},
        "budgets": [
            {"name": "all", "window": "1m", "tokens": 10**10},
            {"name": "spent", "scope": "key", "match": ["spent"], "window": "1h", "tokens": 1},
            *([{"name": "day", "scope": "key", "window": "24h", "tokens": 10**8}] if flood.holders else []),
        ],
    }


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def started(command: list[str], core: int, log: Path, ready: str) -> Iterator[int]:
    """A process that responds at a URL; yields its process id."""
    with log.open("wb") as sink:
        process = targets.spawn(command, cores=(core,), log=sink, environment={})
        try:
            targets.wait_ready(process, ready, log)
            yield process.pid
        finally:
            targets.stop(process)


@contextlib.contextmanager
def system(flood: Flood, folder: Path) -> Iterator[tuple[int, int]]:
    """The gateway and both backends; yields the gateway's port and process id."""
    port, calm, flooded = free_port(), free_port(), free_port()
    backends = {PROBER_MODEL: calm, flood_backend.MODEL: flooded}
    config = folder / "gateway.yaml"
    config.write_text(json.dumps(configuration(folder, port, flood, backends)))  # JSON is YAML
    fake = module("tests.fakes.backend", "--light", "--port", str(calm), "--fault", PROBER_FAULT)
    costly = [*GENTLE, *module("tests.bench.flood_backend", str(flooded), flood.answer)]
    health = "http://127.0.0.1:{}/{}"
    with (
        started(fake, OTHER_CORE, folder / "calm.log", health.format(calm, "health")),
        started(costly, OTHER_CORE, folder / "flooded.log", health.format(flooded, "health")),
        started(
            module("gateway", "serve", str(config)), GATEWAY_CORE, folder / "gateway.log",
            health.format(port, "readyz"),
        ) as pid,
    ):  # fmt: skip
        yield port, pid


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """A process on the other core, whose output is read with `said`."""
    pinned = targets.pinned(command, OTHER_CORE)
    return subprocess.Popen(pinned, stdout=subprocess.PIPE, cwd=targets.ROOT)


def said(process: subprocess.Popen[bytes]) -> Any:
    """The JSON that a process prints."""
    output, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    return json.loads(output)


def prober(port: int, seconds: float) -> subprocess.Popen[bytes]:
    return start(module("tests.bench.prober", str(port), str(seconds), PROBER_KEY, PROBER_MODEL))


def measure(name: str, seconds: float, folder: Path) -> Outcome:
    """Start everything, and flood it."""
    flood = FLOODS[name]
    with system(flood, folder) as (port, pid):
        process = Path(f"/proc/{pid}")
        clients = [*GENTLE, *module("tests.bench.flood_clients", str(port), str(seconds), name)]
        if flood.holders:
            start([*clients, "--prepare"]).wait()
        quiet = summary(**said(prober(port, QUIET_S)))
        before = memory_mib((process / "status").read_text(), "VmRSS")
        (process / "clear_refs").write_text("5")  # VmHWM begins anew
        pids = proc.tree(pid)
        first = Clock.now(pids)
        flooding, probing = start(clients), prober(port, seconds)
        flooded = summary(**said(probing))
        last = Clock.now(pids)
        sent = said(flooding)
        time.sleep(AFTER_S)
        status = (process / "status").read_text()
        memory = Memory(before, memory_mib(status, "VmHWM"), memory_mib(status, "VmRSS"))
        return Outcome(memory, quiet, flooded, sent, *shares(first, last))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(FLOODS), help=f"comma-separated: {', '.join(FLOODS)}")
    parser.add_argument("--seconds", type=float, default=8, help="of each flood")
    parser.add_argument("--out", type=Path, help="also write everything as JSON")
    chosen = parser.parse_args()
    names = chosen.only.split(",")
    if unknown := set(names) - set(FLOODS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed")
    outcomes = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="floods-") as folder:
            outcomes[name] = outcome = measure(name, chosen.seconds, Path(folder))
        print(f"{name}: {outcome}", file=sys.stderr, flush=True)
    print(markdown(outcomes))
    if chosen.out:
        found = {
            "machine": machine.describe(),
            "floods": {name: asdict(one) for name, one in outcomes.items()},
        }
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
