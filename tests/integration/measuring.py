"""Runs `thinkmeter measure` in a process of its own, as its users do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from .conftest import REPOSITORY


def prepare(
    folder: Path,
    name: str,
    model: Mapping[str, Any],
    urls: Iterable[str],
    prompts: Iterable[Mapping[str, str]],
) -> None:
    """Write the configuration of one model, and its prompts."""
    served = {"served_name": "tiny", "replicas": [{"url": url} for url in urls]} | dict(model)
    (folder / "gateway.yaml").write_text(yaml.safe_dump({"models": {name: served}}))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))


async def measure(folder: Path, *options: str) -> asyncio.subprocess.Process:
    """Start `thinkmeter measure`."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "measure", "gateway.yaml", "prompts.jsonl", "--yes"),
        *("--out", "table.jsonl", *options),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "400", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


def answers(folder: Path) -> list[tuple[str, str]]:
    """The prompt and the rung of each answer so far."""
    journal = folder / "table.answers.jsonl"
    text = journal.read_text() if journal.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(line["prompt"], line["rung"]) for line in lines if line["type"] == "answer"]
