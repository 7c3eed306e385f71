"""Measures the headline end to end: real generations through the gateway at several budgets.

    python -m examples.headline [--engine vllm|embedded] [--questions 3000]

Asks every question at every fixed tier (cheap tiers several times, for self-consistency), and adaptively at
one price per budget. Prints the table, and writes headline.json, headline.md and headline.svg into `--out`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from examples import servers
from examples.demo.traffic import fresh_questions
from examples.headline import ask, report
from examples.headline.result import Bootstrap, Way, alone, compare, fixed_ways, vote_ways
from examples.tiny_reasoner.task import Question
from router_model.allocation import allocate

TIMES_DIRECT = (1.5, 2.0, 3.0, 4.0)
EXTRA_SHARES = (0.1, 0.25, 0.5, 0.75)
"""Further budgets, as shares of the way from the cheapest tier's tokens to the longest tier's."""
SAMPLES = {"direct": 16, "short": 4, "medium": 1, "long": 1}
WEIGHTS = servers.ROOT / "examples" / "tiny_reasoner" / "weights"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=("vllm", "embedded"), default="vllm")
    parser.add_argument("--vllm-python", type=Path, default=servers.ROOT / ".venv-vllm" / "bin" / "python")
    parser.add_argument("--questions", type=int, default=3_000)
    parser.add_argument("--calibration", type=int, default=1_000, help="questions that the prices are set on")
    parser.add_argument("--seed", type=int, default=2_026)
    parser.add_argument("--out", type=Path, default=servers.ROOT / "docs")
    return parser.parse_args()


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


def pinned(url: str, questions: list[Question], progress: Progress) -> dict[str, ask.Answers]:
    """Answers at every fixed tier."""
    found = {}
    for tier, samples in SAMPLES.items():
        bar = progress.add_task(f"{tier} × {samples}", total=len(questions))
        found[tier] = asyncio.run(
            ask.answers(url, f"tiny:{tier}", questions, samples, partial(progress.advance, bar))
        )
    return found


def budgets(fixed: list[Way]) -> list[dict[str, float]]:
    """All budgets, ascending, in tokens per question and in multiples of the cheapest tier's tokens."""
    direct, longest = float(fixed[0].tokens.mean()), float(fixed[-1].tokens.mean())
    tokens = [times * direct for times in TIMES_DIRECT]
    tokens += [direct + share * (longest - direct) for share in EXTRA_SHARES]
    return [{"budget": round(t, 3), "times_direct": round(t / direct, 3)} for t in sorted(tokens)]


def measure(backend: str, folder: Path, asked_for: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Measure everything; returns the content of headline.json."""
    drawn = fresh_questions(asked_for.questions + asked_for.calibration, asked_for.seed)
    questions, others = drawn[: asked_for.questions], drawn[asked_for.questions :]
    with servers.gateway(folder, servers.settings(backend)) as url:
        correct, tokens, head = asyncio.run(ask.estimates(url, others))
        given = pinned(url, questions, progress)
    fixed, votes, boot = fixed_ways(given, questions), vote_ways(given, questions), Bootstrap(len(questions))
    rows = []
    for budget in budgets(fixed):
        price = min(allocate(correct, tokens, budget["budget"]).price, 1_000.0)
        bar = progress.add_task(f"adaptive, {budget['budget']:.1f} tokens", total=len(questions))
        with servers.gateway(folder, servers.settings(backend, price=price)) as url:
            found = asyncio.run(ask.answers(url, "tiny", questions, 1, partial(progress.advance, bar)))
        adaptive = Way("adaptive", found.right(questions), found.tokens)
        shares = {tier: found.tiers.count(tier) / len(questions) for tier in servers.TIERS}
        row = compare(budget, adaptive, fixed, votes, boot)
        rows.append(row | {"price": round(price, 6), "tiers": shares})
    return {
        "command": f"python -m examples.headline --engine {asked_for.engine} --questions {len(questions)}",
        "engine": "vLLM's CPU build" if asked_for.engine == "vllm" else "its embedded engine",
        "head": head,
        "temperature": ask.TEMPERATURE,
        "questions": len(questions),
        "calibration": len(others),
        "seed": asked_for.seed,
        "samples": SAMPLES,
        "fixed": [alone(way, boot) for way in fixed],
        "budgets": rows,
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
        result = measure(running.enter_context(start), folder, asked_for, progress)
    asked_for.out.mkdir(parents=True, exist_ok=True)
    (asked_for.out / "headline.json").write_text(json.dumps(result, indent=2) + "\n")
    (asked_for.out / "headline.md").write_text(report.page(result))
    try:
        report.plot(result, asked_for.out / "headline.svg")
    except ImportError:
        print("no plot: matplotlib is not installed (pip install '.[train]' in the clone)")
    print(report.fixed_table(result), report.table(result), sep="\n\n")


if __name__ == "__main__":
    main()
