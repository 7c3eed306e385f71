"""Runs `thinkmeter measure` against fake backends on real ports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import Result

from tests.cli.command import run, write
from tests.serving import configuration


@dataclass
class Measuring:
    """A folder with a configuration and a file of prompts."""

    folder: Path
    config: str
    prompts: Path

    @property
    def table(self) -> Path:
        return self.folder / "table.jsonl"

    @property
    def journal(self) -> Path:
        return self.folder / "table.answers.jsonl"

    def arguments(self, *options: str) -> list[str]:
        return ["measure", self.config, str(self.prompts), "--out", str(self.table), *options]

    async def measure(self, *options: str) -> Result:
        """Run the command in a thread of this process, beside the backends in the event loop."""
        return await asyncio.to_thread(run, *self.arguments(*options))

    async def killed(self, after: int, number: int = signal.SIGKILL) -> tuple[int, str]:
        """Run the command in a process of its own, and end it after so many lines of the journal."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *self.arguments("--concurrency", "4"),
            stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        while process.returncode is None and len(self.lines()) <= after:
            await asyncio.sleep(0.005)
        os.kill(process.pid, number)
        _, said = await process.communicate()
        return process.returncode or 0, said.decode()

    def lines(self) -> list[bytes]:
        """The whole lines of the journal."""
        return self.journal.read_bytes().split(b"\n")[:-1] if self.journal.exists() else []

    def answers(self) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.lines()) if line["type"] == "answer"]

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.table.read_text().splitlines()]


def measuring(folder: Path, *urls: str, count: int = 12, **changes: Any) -> Measuring:
    """A model `tiny` on these backends, and prompts that a `Solver` knows."""
    patient = {"timeouts": {"total": 5, "connect": 1}, "failover": {"retry_share": 1.0}}
    config = write(folder, configuration(*urls, **(patient | changes)))
    prompts = folder / "prompts.jsonl"
    lines = [json.dumps({"id": n, "prompt": f"solve {n}", "answer": str(n)}) for n in range(count)]
    prompts.write_text("\n".join(lines))
    return Measuring(folder, config, prompts)
