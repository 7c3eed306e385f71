"""The machine and the versions that the figures belong to, without the machine's name."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys

from tests.bench import proc

LOOP = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
sys.stdin.readline()
done, end = 0, time.perf_counter() + float(sys.argv[2])
while time.perf_counter() < end:
    sum(range(1_000))
    done += 1
print(done)
"""
LOOP_S = 1.0
PACKAGES = ("thinkmeter", "aiohttp", "fastapi", "uvicorn", "uvloop", "httptools", "msgspec", "orjson")


def describe() -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "cpu": proc.cpu_model(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def looped(cores: tuple[int, ...], seconds: float = LOOP_S) -> int:
    """Rounds of a loop of Python that one process on each core does at the same time, together."""
    words = [[sys.executable, "-c", LOOP, str(core), str(seconds)] for core in cores]
    running = [
        subprocess.Popen(each, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for each in words
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(int(process.communicate()[0]) for process in running)


def two_loops() -> float:
    """How many times as much as one process two do, each on a core of its own: what two workers can reach."""
    return looped((0, 1)) / looped((0,))
