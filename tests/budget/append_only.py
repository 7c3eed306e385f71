"""Replays Redis' append-only file: every settlement, and every state that the scripts wrote.

It uses none of the gateway's code.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BUCKETS = 60
WINDOWS = {"short": (3, 40_000), "long": (60, 400_000)}
"""Length in seconds and cap of the budgets."""


@dataclass
class Log:
    """What the append-only file says about one window."""

    over_cap: int = 0
    """States in which settled and reserved tokens together exceeded the cap."""
    states: int = 0
    granted: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)
    lapsed: set[str] = field(default_factory=set)
    tokens: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Tokens settled by bucket."""
    sums_wrong: int = 0
    """States whose settled tokens are not the sum of the buckets within the window."""
    reserved: int = 0

    def most_in_a_window(self) -> int:
        """The most tokens settled within any stretch of the window's length plus one bucket."""
        most = total = 0
        waiting: list[int] = []
        for bucket in sorted(self.tokens):
            total += self.tokens[bucket]
            waiting.append(bucket)
            while waiting[0] < bucket - BUCKETS:
                total -= self.tokens[waiting.pop(0)]
            most = max(most, total)
        return most


def append_only_files(folder: Path) -> list[Path]:
    """The files a server has written, oldest first: one up to Redis 6.2, later versions use a folder."""
    since = sorted(folder.glob("appendonlydir/*.incr.aof"), key=lambda path: int(path.suffixes[-3][1:]))
    return since or [folder / "appendonly.aof"]


def commands(path: Path) -> Iterator[list[bytes]]:
    """The commands of an append-only file, without a last one that a kill cut off."""
    data, at = path.read_bytes(), 0
    with contextlib.suppress(ValueError):
        while at < len(data):
            end = data.index(b"\r\n", at)
            count, at, words = int(data[at + 1 : end]), end + 2, []
            for _ in range(count):
                end = data.index(b"\r\n", at)
                size, at = int(data[at + 1 : end]), end + 2
                words.append(data[at : at + size])
                at += size + 2
            yield words


def replay(paths: list[Path]) -> dict[str, Log]:
    """Check every state of every window."""
    logs: dict[str, Log] = {name: Log() for name in WINDOWS}
    states: dict[str, dict[bytes, int]] = {name: dict.fromkeys((b"S", b"V", b"T"), 0) for name in WINDOWS}
    changed: set[str] = set()

    def script_ends() -> None:
        for name in changed:
            log, (_, cap) = logs[name], WINDOWS[name]
            settled, reserved, bucket = states[name].values()
            log.states += 1
            log.reserved = reserved
            log.over_cap += settled + reserved > cap
            within = sum(log.tokens.get(bucket - back, 0) for back in range(BUCKETS + 1))
            log.sums_wrong += within != settled
        changed.clear()

    for words in (words for path in paths for words in commands(path)):
        command = words[0].upper()
        name = words[1].decode().split(":")[1] if len(words) > 1 and words[1].startswith(b"{") else ""
        if command == b"EXEC":
            script_ends()
        if name not in logs or words[1].endswith(b":leases"):
            continue
        log = logs[name]
        if command == b"HINCRBY":
            log.tokens[int(words[2])] += int(words[3])
        elif command == b"HDEL":
            log.settled |= {w[1:].decode() for w in words[2:] if w.startswith(b"r")}
        elif command == b"HSET":
            changed.add(name)
            for key, value in zip(words[2::2], words[3::2], strict=True):
                if key in states[name]:
                    states[name][key] = int(value)
                elif key.isdigit():
                    log.tokens[int(key)] = int(value)
                elif key.startswith(b"r"):
                    (log.lapsed if value.startswith(b"x") else log.granted).add(key[1:].decode())
    return logs
