"""`make demo`: the tiny reasoner, the gateway in front of it, and real questions at every tier.

    python -m examples.demo [--questions 12] [--seed 7]

Both run as processes of their own on free ports of 127.0.0.1, as they would for anybody else; the questions
go through the official `openai` client, and an exact grader says what was right.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from examples.tiny_reasoner.task import Question, grade, held_out_set

ROOT = Path(__file__).parent.parent
TIERS = {
    "direct": {"thinking": 0, "answer": 8},
    "short": {"thinking": 24, "answer": 8},
    "long": {"thinking": 200, "answer": 8},
}
CHOICES = ("tiny", *(f"tiny:{tier}" for tier in TIERS))
"""The model names asked: adaptive first, then every pinned tier."""


@dataclass(frozen=True)
class Answer:
    """One answer through the gateway."""

    tier: str
    difficulty: float
    text: str
    right: bool
    tokens: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(name: str, command: list[str], health: str, log: Path) -> Iterator[None]:
    """Run a server until the end of the block; it has answered its health check when the block begins."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *command],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"the {name} did not start:\n{log.read_text()}")
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(health, timeout=1)  # noqa: S310
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"the {name} does not answer:\n{log.read_text()}")
        yield
    finally:
        process.terminate()
        process.wait(10)


async def ask(client: openai.AsyncOpenAI, model: str, question: Question) -> Answer:
    """One question through the gateway, graded."""
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": question.text}], temperature=0
    )
    completion = raw.parse()
    text = (completion.choices[0].message.content or "").strip()
    return Answer(
        tier=raw.headers["x-thinkmeter-tier"],
        difficulty=float(raw.headers["x-thinkmeter-difficulty"]),
        text=text,
        right=grade(text, question.answer),
        tokens=completion.usage.completion_tokens if completion.usage else 0,
    )


async def ask_all(url: str, questions: list[Question], out: Console) -> dict[str, list[Answer]]:
    """Every question under every model name; `CHOICES` → answers in the order of the questions."""
    answers: dict[str, list[Answer]] = {name: [] for name in CHOICES}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        with Progress(console=out, transient=True) as progress:
            task = progress.add_task("asking", total=len(questions) * len(CHOICES))
            for question in questions:
                for name, answer in zip(
                    CHOICES,
                    await asyncio.gather(*(ask(client, name, question) for name in CHOICES)),
                    strict=True,
                ):
                    answers[name].append(answer)
                    progress.advance(task)
    return answers


def show(questions: list[Question], answers: dict[str, list[Answer]], out: Console) -> None:
    """A row a question, then the sums."""
    table = Table()
    table.add_column("question", no_wrap=True, max_width=26)
    for heading in ("right", "hard?", "picks", *TIERS):
        table.add_column(heading, no_wrap=True, min_width=len(heading))
    for i, question in enumerate(questions):
        chosen = answers["tiny"][i]
        pinned = [answers[f"tiny:{tier}"][i] for tier in TIERS]
        cells = [f"[{'green' if a.right else 'red'}]{a.text or '–'}[/] ({a.tokens})" for a in pinned]
        table.add_row(question.text, question.answer, f"{chosen.difficulty:.2f}", chosen.tier, *cells)
    out.print(table)
    sums = Table("model name", "right", "tokens", "tokens a question")
    for name, given in answers.items():
        tokens = sum(a.tokens for a in given)
        sums.add_row(
            name, f"{sum(a.right for a in given)} of {len(given)}", str(tokens), f"{tokens / len(given):.1f}"
        )
    out.print(sums)


def main() -> None:
    """Start both servers, ask, show, stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    out = Console()
    questions = held_out_set(options.questions, seed=options.seed)
    model_port, port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.yaml"
        replicas = [{"name": "tiny-0", "url": f"http://127.0.0.1:{model_port}"}]
        model = {"family": "qwen3", "replicas": replicas, "tiers": TIERS}
        config.write_text(yaml.safe_dump({"models": {"tiny": model}, "price": 2.0}))
        engine = ["-m", "examples.tiny_reasoner.serve", "--port", str(model_port)]
        gateway = ["-m", "gateway", "serve", str(config), "--port", str(port)]
        out.print("Starting the tiny reasoner and the gateway …")
        with (
            server(
                "tiny reasoner", engine, f"http://127.0.0.1:{model_port}/health", Path(folder) / "engine.log"
            ),
            server("gateway", gateway, f"{url}/readyz", Path(folder) / "gateway.log"),
        ):
            answers = asyncio.run(ask_all(url, questions, out))
    show(questions, answers, out)
    out.print(
        "Every answer is a real generation of the tiny reasoner through the gateway; in brackets the tokens "
        "it took, green is right. `tiny` leaves the tier to the gateway, whose difficulty estimate (hard?) "
        "is a baseline of length and keywords until the trained head is in; `tiny:…` pins it."
    )


if __name__ == "__main__":
    main()
