"""From nothing to a head of one's own on a real vLLM, with a model that no head has seen."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

from examples.tiny_reasoner.task import held_out_set
from router_model.head import load_named
from router_model.predictor import TierLength

from .conftest import REPOSITORY, TIERS, Eventually, Puzzle
from .processes import Replica

PROMPTS = 150
SECONDS = 300


async def measure(folder: Path, *options: str) -> asyncio.subprocess.Process:
    """`thinkmeter measure` in a process of its own."""
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


async def test_head_of_one_command(
    replicas: list[Replica], tmp_path: Path, eventually: Eventually, easy: Puzzle, hard: Puzzle
) -> None:
    """A killed run goes on, asks for nothing twice, and ends with a head that knows easy from hard."""
    served = {"family": "qwen3", "served_name": "tiny", "tiers": TIERS}
    served["replicas"] = [{"url": replica.url} for replica in replicas]
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump({"models": {"unheard-of": served}}))
    asked = [
        {"question": question.text, "answer": question.answer}
        for question in held_out_set(PROMPTS + 40)
        if question.text not in (easy.question.text, hard.question.text)
    ][:PROMPTS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))

    first = await measure(tmp_path)
    await eventually(lambda: len(answers(tmp_path)) > 2 * PROMPTS, "half of the answers are there")
    first.send_signal(signal.SIGKILL)
    await first.wait()
    before = Counter(answers(tmp_path))
    began = time.monotonic()
    second = await measure(tmp_path, "--calibrate")
    output, _ = await asyncio.wait_for(second.communicate(), SECONDS)

    assert second.returncode == 0, output.decode()
    assert "The new head is kept" in output.decode()
    found = Counter(answers(tmp_path))
    assert before <= found
    assert set(found.values()) == {1}
    assert len(found) == len(TIERS) * PROMPTS
    assert time.monotonic() - began < SECONDS
    head = load_named(tmp_path / "table-head")
    lengths = tuple(TierLength(name, tier["thinking"], tier["answer"]) for name, tier in TIERS.items())
    simple, difficult = (head.predict(one.question.text, "unheard-of", lengths) for one in (easy, hard))
    assert simple.correct[0] > difficult.correct[0]
    assert difficult.correct[-1] > difficult.correct[0]
