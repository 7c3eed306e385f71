"""Writes the model card: what the model is, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from examples.tiny_reasoner.report import Row, markdown, mean, rank_correlation, tiers

FRONT = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
tags: [reasoning, arithmetic, tiny]
---

# A tiny reasoner

A Qwen3-architecture language model of {millions:.2f} million parameters ({layers} layers, width {width})
that answers small questions about numbers: arithmetic with brackets, remainders and iterated maps, stories,
lists, comparisons, and definitions that build on each other. It answers at once, or thinks first: step by
step, then a check, then a third pass if the two differ. For definitions, it first traces its way back from
the name that is asked for. A thought may be cut anywhere; the model then answers with its best guess.

It was trained from scratch on questions from its own generator and knows nothing else. It is a
demonstration of reasoning budgets, not an assistant. It reads printable ASCII, and its answers to other
kinds of questions are meaningless.

## Use

With vLLM:

```sh
vllm serve DIR --served-model-name tiny --max-model-len 2048 --reasoning-parser qwen3
```

Without a GPU and without vLLM: `python -m examples.tiny_reasoner.serve --port 8001`. Switch thinking off
with `chat_template_kwargs: {{"enable_thinking": false}}`; limit it with `thinking_token_budget`.

## Measured

{questions} questions that were not used in training, {samples} samples each at temperature {temperature}.
Each cell has the share of right answers and, in brackets, the mean number of completion tokens including
reasoning. Thinking budgets: {budgets}. The tenths sort questions by their true number of elementary steps.

"""
BACK = """
Mean tokens relative to `{first}`: {ratios}.
Rank correlation between the length of a question's text and its true difficulty: {correlation:.2f}.
The model fails on most of the last tenth at any budget: two-digit products with a remainder, and maps applied
dozens of times.
"""


def _parameters(directory: Path) -> int:
    raw = (directory / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return (len(raw) - 8 - size) // 4


def card(rows: Sequence[Row], directory: Path, temperature: float, budgets: dict[str, int]) -> str:
    """The text of the model card."""
    config = json.loads((directory / "config.json").read_text("utf-8"))
    names = tiers(rows)
    tokens = {name: mean(rows, name, "tokens") for name in names}
    front = FRONT.format(
        millions=_parameters(directory) / 1e6,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        questions=f"{len(rows):,}",
        samples=rows[0]["tiers"][names[0]]["n"],
        temperature=temperature,
        budgets=", ".join(f"{name} {budget}" for name, budget in budgets.items()),
    )
    back = BACK.format(
        first=names[0],
        ratios=", ".join(f"{name} {tokens[name] / tokens[names[0]]:.1f}" for name in names),
        correlation=rank_correlation(rows),
    )
    return front + markdown(rows) + back
