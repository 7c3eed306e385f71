"""From nothing to a head of one's own on a real vLLM, with a model that no head has seen."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

from examples.tiny_reasoner.task import held_out_set
from router_model.head import load_named
from router_model.predictor import TierLength

from .conftest import TIERS, Eventually, Puzzle
from .measuring import answers, measure, prepare
from .processes import Replica

PROMPTS = 150
SECONDS = 300


async def test_head_of_one_command(
    replicas: list[Replica], tmp_path: Path, eventually: Eventually, easy: Puzzle, hard: Puzzle
) -> None:
    """A killed run goes on, asks for nothing twice, and ends with a head that knows easy from hard."""
    asked = [
        {"question": question.text, "answer": question.answer}
        for question in held_out_set(PROMPTS + 40)
        if question.text not in (easy.question.text, hard.question.text)
    ][:PROMPTS]
    model = {"family": "qwen3", "tiers": TIERS}
    prepare(tmp_path, "unheard-of", model, [replica.url for replica in replicas], asked)

    first = await measure(tmp_path)
    await eventually(lambda: len(answers(tmp_path)) > 2 * PROMPTS, "half of the answers are there")
    first.send_signal(signal.SIGKILL)
    await first.wait()
    before = Counter(answers(tmp_path))
    second = await measure(tmp_path, "--calibrate")
    output, _ = await asyncio.wait_for(second.communicate(), SECONDS)

    assert second.returncode == 0, output.decode()
    assert "The new head is kept" in output.decode()
    assert "A router loses here" not in output.decode()
    assert "at equal tokens, its choices gain" in output.decode()
    found = Counter(answers(tmp_path))
    assert before <= found
    assert set(found.values()) == {1}
    assert len(found) == len(TIERS) * PROMPTS
    head = load_named(tmp_path / "table-head")
    lengths = tuple(TierLength(name, tier["thinking"], tier["answer"]) for name, tier in TIERS.items())
    simple, difficult = (head.predict(one.question.text, "unheard-of", lengths) for one in (easy, hard))
    assert simple.correct[0] > difficult.correct[0]
    assert difficult.correct[-1] > difficult.correct[0]
