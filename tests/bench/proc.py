"""CPU time and memory from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Core(NamedTuple):
    """Seconds that one core has spent since boot."""

    busy: float
    steal: float


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (the second may contain spaces)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of the processes together, and of their children that have ended."""
    total = 0
    for pid in pids:
        total += sum(map(int, _stat(pid)[11:15]))
    return total * TICK


def resident_mib(pids: list[int]) -> float:
    """Resident memory of the processes together."""
    return sum(int(_stat(pid)[21]) for pid in pids) * PAGE / 2**20


def cores() -> list[Core]:
    """All cores, in order."""
    found = []
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("cpu") and line[3].isdigit():
            user, nice, system, _, _, irq, softirq, steal = (int(field) for field in line.split()[1:9])
            found.append(Core((user + nice + system + irq + softirq) * TICK, steal * TICK))
    return found


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
