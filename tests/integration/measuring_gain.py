"""
What a head of one command is worth, on prompts that it has not seen, with a real vLLM.

    VLLM=newest python -m tests.integration.measuring_gain [--smollm2] [--own 500] [--others 400] [--out DIR]

The head `general` has never seen the model: the tiny reasoner, or SmolLM2, which is asked small sums.
`thinkmeter measure --calibrate` asks it some questions of one's own and makes a head. The other questions are
then measured too, and `thinkmeter evaluate` compares the head's choices among those with fixed tiers, mixed
as well as possible, at equal tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from examples.tiny_reasoner.serve import WEIGHTS
from examples.tiny_reasoner.task import held_out_set

from . import smollm2
from .conftest import REPOSITORY, TIERS
from .install_vllm import FOLDERS
from .measuring import measure, prepare
from .processes import THINKING, stopping, vllm_server

Prompts = list[dict[str, str]]


async def measured(folder: Path, model: dict[str, Any], url: str, prompts: Prompts, *options: str) -> None:
    """Measure the answers at every tier, and print the end of what the command says."""
    folder.mkdir()
    prepare(folder, "unheard-of", model, [url], prompts)
    run = await measure(folder, *options)
    output, _ = await run.communicate()
    if run.returncode:
        raise RuntimeError(output.decode())
    print(output.decode().partition("┏")[2])


def main() -> None:
    """Measure, calibrate, measure again, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smollm2", action="store_true")
    parser.add_argument("--own", type=int, default=500)
    parser.add_argument("--others", type=int, default=400)
    parser.add_argument("--out", type=Path, help="also write a report with figures here")
    asked = parser.parse_args()
    python = REPOSITORY / FOLDERS[os.environ.get("VLLM") or "newest"] / "bin" / "python"
    count = asked.own + asked.others
    weights, options, model = WEIGHTS, THINKING, {"family": "qwen3", "tiers": TIERS}
    prompts = [{"question": question.text, "answer": question.answer} for question in held_out_set(count)]
    asking = ["--samples", "2"]
    if asked.smollm2:
        asking = ["--temperature", "0"]  # it gets few sums right when it draws its words
        weights, options = smollm2.smollm2_weights(python), smollm2.OPTIONS
        model, prompts = {"family": "plain", "tiers": smollm2.TIERS}, smollm2.sums(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vllm = vllm_server("a", python, weights, folder, options)
        with stopping([vllm]):
            vllm.wait_until_ready("/health")
            asyncio.run(
                measured(folder / "own", model, vllm.url, prompts[: asked.own], *asking, "--calibrate")
            )
            asyncio.run(measured(folder / "others", model, vllm.url, prompts[asked.own :], *asking))
        report = asked.out or folder / "report"
        head, table = folder / "own" / "table-head", folder / "others" / "table.jsonl"
        command = [sys.executable, "-m", "gateway", "evaluate", str(head), str(table), "--out", str(report)]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        print((report / "report.md").read_text().partition("## How")[0])


if __name__ == "__main__":
    main()
