"""Measures the headline end to end: real generations through the gateway at several budgets.

    python -m examples.headline [--engine vllm|embedded] [--questions 3000] [--rungs 4,9,16]

Asks every question at every thinking budget of the ladders (cheap ones several times, for
self-consistency), and adaptively with each ladder at one price per budget. Prints the table, and writes
headline.json, headline.md and headline.svg into `--out`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress

from examples import servers
from examples.demo.traffic import fresh_questions
from examples.headline import ask, report
from examples.headline.experiment import Experiment

WEIGHTS = servers.ROOT / "examples" / "tiny_reasoner" / "weights"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("vllm", "embedded"), default="vllm")
    parser.add_argument("--vllm-python", type=Path, default=servers.ROOT / ".venv-vllm" / "bin" / "python")
    parser.add_argument("--questions", type=int, default=3_000)
    parser.add_argument("--calibration", type=int, default=1_000, help="questions that the prices are set on")
    parser.add_argument(
        "--rungs", type=counts, default=(4, 9, 16), help="numbers of rungs to compare, separated by commas"
    )
    parser.add_argument("--seed", type=int, default=2_026)
    parser.add_argument("--out", type=Path, default=servers.ROOT / "docs")
    return parser.parse_args()


def counts(text: str) -> tuple[int, ...]:
    """Numbers of rungs, rising."""
    return tuple(sorted({int(count) for count in text.split(",")}))


@contextmanager
def vllm(python: Path, folder: Path) -> Iterator[str]:
    """Run a vLLM server (CPU build) with the tiny reasoner; yields its URL."""
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    marks = {"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}
    command = [
        *[str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(WEIGHTS)],
        *["--served-model-name", "tiny", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)],
        *["--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "256"],
        *["--reasoning-parser", "qwen3", "--reasoning-config", json.dumps(marks)],
    ]
    environ = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_CACHE_ROOT": str(folder / "cache"),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with servers.server("vLLM", command, f"{url}/health", folder / "vllm.log", seconds=600, environ=environ):
        yield url


def described(asked_for: argparse.Namespace) -> dict[str, Any]:
    """The part of headline.json that says what was run."""
    rungs = ",".join(map(str, asked_for.rungs))
    return {
        "command": f"python -m examples.headline --engine {asked_for.engine}"
        f" --questions {asked_for.questions} --calibration {asked_for.calibration} --rungs {rungs}",
        "engine": "vLLM's CPU build" if asked_for.engine == "vllm" else "its embedded engine",
        "temperature": ask.TEMPERATURE,
        "questions": asked_for.questions,
        "calibration": asked_for.calibration,
        "seed": asked_for.seed,
    }


def main() -> None:
    """Start, measure, write, print."""
    asked_for = options()
    if asked_for.engine == "vllm" and not asked_for.vllm_python.exists():
        missing = f"there is no vLLM at {asked_for.vllm_python}"
        raise SystemExit(f"{missing}: `make headline` installs it, or use --engine embedded")
    with tempfile.TemporaryDirectory() as name, ExitStack() as running, Progress() as progress:
        folder = Path(name)
        start = vllm(asked_for.vllm_python, folder) if asked_for.engine == "vllm" else servers.engine(folder)
        drawn = fresh_questions(asked_for.questions + asked_for.calibration, asked_for.seed)
        questions, others = drawn[: asked_for.questions], drawn[asked_for.questions :]
        experiment = Experiment(running.enter_context(start), folder, questions, others, progress)
        result = described(asked_for) | experiment.measure(asked_for.rungs)
    asked_for.out.mkdir(parents=True, exist_ok=True)
    (asked_for.out / "headline.json").write_text(json.dumps(result, indent=2) + "\n")
    (asked_for.out / "headline.md").write_text(report.page(result))
    try:
        report.plot(result, asked_for.out / "headline.svg")
    except ImportError:
        print("no plot: matplotlib is not installed (pip install '.[train]' in the clone)")
    print(report.fixed_table(result), report.table(result["budgets"]), sep="\n\n")


if __name__ == "__main__":
    main()
