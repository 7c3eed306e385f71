"""Processes that use a store: `python -m tests.evidence.processes secret|write URL FILE`."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store, secret_of
from gateway.evidence.writer import EvidenceWriter

ROOT = Path(__file__).parents[2]


def begin(what: str, settings: EvidenceSettings) -> subprocess.Popen[str]:
    """Start a process that prints what it found."""
    url = settings.url.get_secret_value() if settings.url else ""
    command = [sys.executable, "-m", "tests.evidence.processes", what, url, settings.file]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _secret(settings: EvidenceSettings) -> None:
    engine = open_store(settings)
    print(secret_of(engine).hex())
    engine.dispose()


def _write(settings: EvidenceSettings) -> None:
    """Write decisions without end, and print how many were written whenever it changes."""
    from tests.evidence.made import decision

    writer = EvidenceWriter(settings)
    writer.start()
    begun, told = time.time_ns(), 0
    for number in itertools.count():
        while writer.waiting > 2_000:
            time.sleep(0.001)
        writer.put(decision(number, id=f"{begun}-{number}", at=time.time()))
        if writer.written["decisions"] != told:
            told = writer.written["decisions"]
            print(told, flush=True)


if __name__ == "__main__":
    action, address, path = sys.argv[1:]
    {"secret": _secret, "write": _write}[action](EvidenceSettings(url=address or None, file=path))
