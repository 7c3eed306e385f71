"""The load generator of vLLM, run against the gateway."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.serving import Running

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)  # it loads all of vLLM first
async def test_vllm_bench(running: Running, vllm_python: Path) -> None:
    """The program in examples/clients completes all of its requests."""
    program = str(ROOT / "examples" / "clients" / "with_vllm_bench.sh")
    tokenizer = str(ROOT / "examples" / "tiny_reasoner" / "weights")
    environ = os.environ | {"VLLM_BENCH": f"{vllm_python} {Path(__file__).with_name('vllm_bench.py')}"}
    process = await asyncio.create_subprocess_exec(
        *("sh", program, running.url, "tiny", tokenizer),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    raw, _ = await process.communicate()
    output = raw.decode()

    assert process.returncode == 0, output
    assert output.split("Successful requests:")[1].split()[0] == "16"
    assert sum(record.status == 200 for record in running.records if record.decision) >= 16
