"""Measures the model on held-out questions: `python -m examples.tiny_reasoner.evaluate`."""

from __future__ import annotations

import argparse
import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from examples.tiny_reasoner import report
from examples.tiny_reasoner.card import card as model_card
from examples.tiny_reasoner.chat import render
from examples.tiny_reasoner.engine import Engine, Finish, Sampling, Sequence
from examples.tiny_reasoner.task import Question, grade, held_out_set

HERE = Path(__file__).parent
TIERS = {"direct": 0, "short": 24, "medium": 96, "long": 320}
ANSWER_ROOM = 16
QUESTIONS, SAMPLES, TEMPERATURE = 2_000, 4, 0.7
FURTHER = 4_000


@dataclass(slots=True)
class Outcome:
    """Outcome of the samples of one question at one tier."""

    correct: list[bool] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def row(self) -> dict[str, float | int]:
        """The row of the outcome table."""
        count = len(self.correct)
        return {
            "correct": sum(self.correct) / count,
            "tokens": sum(self.tokens) / count,
            "n": count,
        }


class Exam:
    """Runs every question at every tier through the engine concurrently."""

    def __init__(self, engine: Engine, temperature: float, samples: int) -> None:
        self.engine, self.temperature, self.samples = engine, temperature, samples
        self._left = 0
        self._counting = threading.Lock()  # the engine delivers from several threads
        self._done = threading.Event()
        self._failed: Exception | None = None

    def run(self, asked: list[Question], tick: Callable[[], object]) -> list[dict[str, Outcome]]:
        """Outcomes by tier for each question."""
        outcomes = [{tier: Outcome() for tier in TIERS} for _ in asked]
        self._left = len(asked) * len(TIERS) * self.samples
        for place, (tier, budget) in enumerate(TIERS.items()):
            for index, question in enumerate(asked):
                for sample in range(self.samples):
                    seed = (index * len(TIERS) + place) * self.samples + sample
                    self._submit(question, budget, outcomes[index][tier], seed, tick)
        self._done.wait()
        if self._failed is not None:
            raise self._failed
        return outcomes

    def _submit(
        self, question: Question, budget: int, outcome: Outcome, seed: int, tick: Callable[[], object]
    ) -> None:
        prompt = self.engine.tokenizer.encode(render(question.text, thinking=budget > 0))
        sampling = Sampling(budget + ANSWER_ROOM, self.temperature, seed=seed, thinking_budget=budget)

        def deliver(token: int, finish: Finish | None) -> None:
            if finish is None:
                return
            right = grade(self.answer(sequence.tokens), question.answer)
            with self._counting:
                outcome.correct.append(right)
                outcome.tokens.append(len(sequence.tokens))
                tick()
                self._left -= 1
                if self._left == 0:
                    self._done.set()

        def fail(error: Exception) -> None:
            self._failed = error
            self._done.set()

        sequence = Sequence(prompt, sampling, deliver, fail)
        self.engine.submit(sequence)

    def answer(self, tokens: list[int]) -> str:
        """The text after the thought, without the end token."""
        if self.engine.unthink in tokens:
            tokens = tokens[tokens.index(self.engine.unthink) + 1 :]
        return self.engine.tokenizer.decode(tokens)


def table(asked: list[Question], outcomes: list[dict[str, Outcome]], first: int = 0) -> list[dict[str, Any]]:
    """The outcome table, one row per question; `first` is the number of the first question."""
    return [
        {
            "id": f"tiny-{first + index:04d}",
            "dataset": "tiny_reasoner",
            "prompt": question.text,
            "category": question.family,
            "level": question.difficulty,
            "answer": question.answer,
            "tiers": {tier: outcome.row() for tier, outcome in by_tier.items()},
        }
        for index, (question, by_tier) in enumerate(zip(asked, outcomes, strict=True))
    ]


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the rows as gzipped JSON lines; the same rows give the same bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def write_card(rows: list[dict[str, Any]], model: Path, temperature: float) -> None:
    """The model card, README.md of the model's directory."""
    (model / "README.md").write_text(model_card(rows, model, temperature, TIERS), encoding="utf-8")


def read_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, default=HERE / "weights")
    add("--out", type=Path, default=HERE / "measured")
    add("--questions", type=int, default=QUESTIONS)
    add("--further", action="store_true", help="4,000 further questions, as data to train a router head on")
    add("--samples", type=int, default=SAMPLES)
    add("--temperature", type=float, default=TEMPERATURE)
    return parser.parse_args()


def measure(model: Path, asked: list[Question], samples: int, temperature: float) -> list[dict[str, Outcome]]:
    """Outcomes by tier for each question, with a progress bar."""
    engine = Engine(model)
    exam = Exam(engine, temperature, samples)
    with Progress() as progress:
        bar = progress.add_task("asking", total=len(asked) * len(TIERS) * samples)
        engine.start()
        try:
            return exam.run(asked, lambda: progress.advance(bar))
        finally:
            engine.close()


def main() -> None:
    """Ask, grade and write the table; for the published questions the plot and the model card too."""
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    count = options.questions
    first, last = (count, count + FURTHER) if options.further else (0, count)
    asked = held_out_set(last)[first:]
    rows = table(asked, measure(options.model, asked, options.samples, options.temperature), first)
    if options.further:
        write_table(rows, options.out / "training.jsonl.gz")
        return
    write_table(rows, options.out / "outcomes.jsonl.gz")
    write_card(rows, options.model, options.temperature)
    report.write(rows, options.out)
    print(report.markdown(rows))


if __name__ == "__main__":
    main()
