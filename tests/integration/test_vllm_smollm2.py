"""A real model that this project did not train: SmolLM2-135M-Instruct. Optional: `make test-smollm2`."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .measuring import answers, measure, prepare
from .processes import Replica, stopping, vllm_server
from .smollm2 import OPTIONS, TIERS, smollm2_weights, sums

pytestmark = pytest.mark.skipif(
    "SMOLLM2" not in os.environ,
    reason="SMOLLM2 is not set: `make test-smollm2` installs the model and sets it",
)

PROMPTS = 80
SECONDS = 900


@pytest.fixture(scope="session")
def smollm2(vllm_python: Path, workplace: Path) -> Iterator[Replica]:
    """A vLLM server with the model."""
    server = vllm_server("smollm2", vllm_python, smollm2_weights(vllm_python), workplace, OPTIONS)
    with stopping([server]):
        server.wait_until_ready("/health")
        yield server


async def test_measured_and_calibrated(smollm2: Replica, tmp_path: Path) -> None:
    """One command measures it, and its choices are no worse than fixed lengths at the same tokens."""
    prepare(tmp_path, "smollm2", {"family": "plain", "tiers": TIERS}, [smollm2.url], sums(PROMPTS))
    run = await measure(tmp_path, "--calibrate", "--temperature", "0")
    output = (await asyncio.wait_for(run.communicate(), SECONDS))[0].decode()

    assert run.returncode == 0, output
    assert len(set(answers(tmp_path))) == len(answers(tmp_path)) == PROMPTS * len(TIERS)
    said = re.search(r"its choices get ([\d.]+) % right .*; fixed rungs get ([\d.]+) %", output)
    assert said, output
    chosen, fixed = map(float, said.groups())
    assert chosen >= fixed - 5
    assert chosen > 10, "the model solves none of these"
    assert re.search(
        r"A router (gains|loses) here: |No gain of a router can be told from chance here: ", output
    )
