"""Measures what a script call costs in a window with many reservations: `python -m tests.bench.scripts`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from gateway.store.commands import (
    JournalEntry,
    JournalPart,
    ReserveCommand,
    ScriptCall,
    Window,
    exchange_call,
    status_call,
    window,
    window_call,
)
from gateway.store.scripts import sources
from tests.redis import RealRedis, real_redis

DAY = window("{t}", "day", 86_400, "*", 10**13)
COMMAND = ReserveCommand((DAY,), (0,), ((100,),))
LEASE_MS = 15_000
CAPS, JOURNAL = "{t}:caps", "{t}:journal"
SCRIPTS = {"reserve": "exchange", "settle": "exchange"}
KINDS = ("running", "lease ended", "expired")
"""Reservations of requests that run, of gateways that died, and those that were settled in their place."""


def fill(client: Any, where: Window, kind: str, count: int) -> None:
    """Put reservations of one kind into an empty window."""
    client.flushall()
    if not count:
        return
    now = int(time.time() * 1000)
    bucket = now // where.bucket_ms
    ends = now + {"running": 600_000, "lease ended": -1_000, "expired": 86_400_000}[kind]
    value = f"x5:{bucket}" if kind == "expired" else "5:-1"
    pipe = client.pipeline(transaction=False)
    for start in range(0, count, 5_000):
        ids = [f"old-{number}" for number in range(start, min(start + 5_000, count))]
        pipe.hset(where.key, mapping={f"r{id_}": value for id_ in ids})
        pipe.zadd(where.leases, dict.fromkeys(ids, ends))
        pipe.execute()
    settled, reserved = (5 * count, 0) if kind == "expired" else (0, 5 * count)
    state = {"S": settled, "V": reserved, "T": bucket, "L": ends, "B": bucket, "H": now, str(bucket): settled}
    client.hset(where.key, mapping=state)


def calls(number: int) -> dict[str, ScriptCall]:
    """One call of each script. number: makes ids and sequence numbers unique, from 1."""
    entry = JournalEntry("settle", f"new-{number}", (DAY,), [(5, 5)], number)
    return {
        "reserve": exchange_call(None, [(f"new-{number}", COMMAND)], caps=CAPS, lease_ms=LEASE_MS),
        "settle": exchange_call(JournalPart(JOURNAL, number - 1, [entry]), caps=CAPS, lease_ms=LEASE_MS),
        "status": status_call([DAY], caps=CAPS),
        "reset": window_call(DAY, caps=CAPS, lease_ms=LEASE_MS),
    }


def durations(client: Any, scripts: dict[str, Callable[..., Any]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each script's calls, with the round trip, in order of length."""
    client.ping()  # returns once the server has freed what was there before
    took: dict[str, list[float]] = {name: [] for name in calls(1)}
    for number in range(1, repeats + 1):
        for name, (keys, arguments) in calls(number).items():
            begun = time.perf_counter()
            scripts[SCRIPTS.get(name, name)](keys=keys, args=arguments)
            took[name].append(1000 * (time.perf_counter() - begun))
    return {name: sorted(times) for name, times in took.items()}


def measure(server: RealRedis, counts: list[int], repeats: int) -> None:
    """Print the median and the longest call of each script, for every kind and number of reservations."""
    with server.client() as client:
        scripts = {name: client.register_script(text) for name, text in sources().items()}
        durations(client, scripts, 3)  # loads the scripts
        for kind in KINDS:
            for count in counts:
                fill(client, DAY, kind, count)
                row = "  ".join(
                    f"{name} {times[len(times) // 2]:.2f} ({times[-1]:.1f})"
                    for name, times in durations(client, scripts, repeats).items()
                )
                print(f"{kind:12} {count:9,}  {row}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", default="0,10000,100000,1000000")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    with real_redis() as running:
        measure(running, [int(word) for word in options.counts.split(",")], options.repeats)
