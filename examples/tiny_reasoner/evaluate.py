"""Measures the model on held-out questions: `python -m examples.tiny_reasoner.evaluate`."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

from rich.progress import Progress

from examples.servers import TIERS
from examples.tiny_reasoner import report
from examples.tiny_reasoner.card import card as model_card
from examples.tiny_reasoner.cuts import Model, Sample, direct_samples, thinking_samples
from examples.tiny_reasoner.task import Question, held_out_set

HERE = Path(__file__).parent
BUDGETS = (0, 4, 6, 8, 12, 17, 24, 29, 36, 44, 53, 65, 79, 96, 117, 143, 175, 214, 262, 320)
"""The measured thinking budgets: geometric between 4 and the budgets of the tiers."""
QUESTIONS, SAMPLES, TEMPERATURE, SEED = 2_000, 4, 0.7, 1
FURTHER = 4_000
_NAMES = {budget: tier for tier, budget in TIERS.items()}


def name(budget: int) -> str:
    """The name in the outcome table: that of the tier with this budget, otherwise the budget itself."""
    return _NAMES.get(budget, str(budget))


def cell(samples: list[Sample], budget: int) -> dict[str, float | int]:
    """The cell of the outcome table for the samples of one question at one budget."""
    count = len(samples)
    return {
        "correct": sum(sample.right for sample in samples) / count,
        "tokens": sum(sample.tokens for sample in samples) / count,
        "n": count,
        "thinking": budget,
    }


def table(
    asked: list[Question], samples: dict[int, list[list[Sample]]], first: int = 0
) -> list[dict[str, Any]]:
    """The outcome table, one row per question; `first` is the number of the first question.

    samples: by thinking budget and question.
    """
    return [
        {
            "id": f"tiny-{first + index:04d}",
            "dataset": "tiny_reasoner",
            "prompt": question.text,
            "category": question.family,
            "level": question.difficulty,
            "answer": question.answer,
            "tiers": {name(budget): cell(found[index], budget) for budget, found in samples.items()},
        }
        for index, question in enumerate(asked)
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
    add("--seed", type=int, default=SEED, help="the same seed and CTranslate2 give the same table")
    return parser.parse_args()


def measure(
    model: Path, asked: list[Question], samples: int, temperature: float, seed: int = SEED
) -> dict[int, list[list[Sample]]]:
    """Samples of each question by thinking budget, with a progress bar for each stage."""
    with Progress() as progress:
        bar = progress.add_task("sampling")
        source = Model(
            model, temperature, seed, lambda done, total: progress.update(bar, completed=done, total=total)
        )
        direct = direct_samples(source, asked, samples)
        return {0: direct} | thinking_samples(source, asked, BUDGETS[1:], samples)


def main() -> None:
    """Ask, grade and write the table; for the published questions the plot and the model card too."""
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    count = options.questions
    first, last = (count, count + FURTHER) if options.further else (0, count)
    asked = held_out_set(last)[first:]
    samples = measure(options.model, asked, options.samples, options.temperature, options.seed)
    rows = table(asked, samples, first)
    if options.further:
        write_table(rows, options.out / "training.jsonl.gz")
        return
    write_table(rows, options.out / "outcomes.jsonl.gz")
    write_card(rows, options.model, options.temperature)
    report.write(rows, options.out)
    print(report.markdown(rows))


if __name__ == "__main__":
    main()
