"""
How fast `thinkmeter measure` goes through its prompts, beside vLLM's own load generator.

    VLLM=newest python -m tests.integration.measuring_speed [--prompts 500] [--rounds 3]

Both ask one vLLM with the tiny reasoner the same questions with the same fields, 32 at a time, in turn.
vLLM's generator runs twice in each round: as it does by itself, with streams, and with whole answers as
`measure` asks for. A rate is the number of answers by the time from the first request to the last answer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import yaml

from examples.tiny_reasoner.serve import WEIGHTS
from examples.tiny_reasoner.task import held_out_set

from .conftest import REPOSITORY, TIERS
from .install_vllm import FOLDERS
from .processes import Replica, stopping, vllm_server

AT_ONCE = 32
LONG = TIERS["long"]
FIELDS = {
    "thinking_token_budget": LONG["thinking"],
    "chat_template_kwargs": {"enable_thinking": True},
    "temperature": 0,
}


def generated(python: Path, vllm: Replica, folder: Path, prompts: int, *options: str) -> float:
    """Answers per second of `vllm bench serve`."""
    result = folder / "result.json"
    subprocess.run(
        [
            *(str(python), str(Path(__file__).with_name("vllm_bench.py"))),
            *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", vllm.url),
            *("--model", "tiny", "--tokenizer", str(WEIGHTS), "--skip-chat-template", "--disable-shuffle"),
            *("--dataset-name", "sharegpt", "--dataset-path", "shared.json"),
            *("--sharegpt-output-len", str(LONG["thinking"] + LONG["answer"])),
            *("--num-prompts", str(prompts), "--max-concurrency", str(AT_ONCE)),
            *("--save-result", "--result-filename", str(result), "--extra-body", json.dumps(FIELDS)),
            *options,
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    found = json.loads(result.read_text())
    if found["completed"] != prompts:
        raise RuntimeError(f"{found['failed']} of the generator's requests failed")
    return float(found["request_throughput"])


def measured(folder: Path, prompts: int) -> float:
    """Answers per second of `thinkmeter measure`."""
    for old in folder.glob("table*"):
        old.unlink()
    subprocess.run(
        [
            *(sys.executable, "-m", "gateway", "measure", "gateway.yaml", "prompts.jsonl", "--yes"),
            *("--rungs", "long", "--concurrency", str(AT_ONCE), "--temperature", "0", "--out", "table.jsonl"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    lines = [json.loads(line) for line in (folder / "table.answers.jsonl").read_text().splitlines()]
    answers = [line for line in lines if line["type"] == "answer"]
    if len(answers) != prompts:
        raise RuntimeError(f"{len(answers)} answers to {prompts} prompts")
    began = min(answer["at"] - answer["seconds"] for answer in answers)
    return prompts / (max(answer["at"] for answer in answers) - began)


def main() -> None:
    """Print the rates of each round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    release = os.environ.get("VLLM") or "newest"
    python = REPOSITORY / FOLDERS[release] / "bin" / "python"
    questions = held_out_set(asked.prompts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vllm = vllm_server("a", python, WEIGHTS, folder)
        replicas = [{"url": vllm.url}]
        model = {"family": "qwen3", "served_name": "tiny", "tiers": TIERS, "replicas": replicas}
        (folder / "gateway.yaml").write_text(yaml.safe_dump({"models": {"tiny": model}}))
        rows = [json.dumps({"question": q.text, "answer": q.answer}) for q in questions]
        (folder / "prompts.jsonl").write_text("\n".join(rows))
        talks = [[{"from": "human", "value": q.text}, {"from": "gpt", "value": q.answer}] for q in questions]
        (folder / "shared.json").write_text(json.dumps([{"conversations": talk} for talk in talks]))
        with stopping([vllm]):
            vllm.wait_until_ready("/health")
            rates: dict[str, list[float]] = {
                "thinkmeter measure": [],
                "vllm bench": [],
                "vllm bench, whole": [],
            }
            for _ in range(asked.rounds):
                rates["thinkmeter measure"].append(measured(folder, asked.prompts))
                rates["vllm bench"].append(generated(python, vllm, folder, asked.prompts))
                if release == "newest":
                    whole = generated(python, vllm, folder, asked.prompts, "--no-stream")
                    rates["vllm bench, whole"].append(whole)
    for who, found in rates.items():
        if found:
            each = ", ".join(f"{rate:.1f}" for rate in found)
            print(f"{who}: {median(found):.1f} answers/s ({each})")


if __name__ == "__main__":
    main()
