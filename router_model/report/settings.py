"""The settings of docs/results.md: which tables, which tiers, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from router_model.prompts import normalised
from router_model.training.outcomes import OutcomeTable, read_table

TINY = "tiny"
FURTHER = "training.jsonl.gz"
"""The file beside the tiny reasoner's table, with questions to train on."""

TOKENS = "mean completion tokens"


@dataclass(frozen=True, slots=True)
class Setting:
    """One table and its tiers, on which all methods are compared."""

    key: str
    title: str
    file: str
    tiers: tuple[str, ...]
    note: str
    costs: Mapping[str, float] = field(default_factory=dict)
    """Factors for the tokens of some tiers."""
    unit: str = TOKENS
    apart: Mapping[str, str] = field(default_factory=dict)
    """Titles of the data sets that are also measured on their own."""
    thorough: bool = False
    """Cross-validate for every seed although the table is large."""

    def table(self, folder: Path, tiny: Path | None) -> OutcomeTable | None:
        """The table with its costs; None if the file does not exist.

        Raises: OutcomeError.
        """
        path = tiny if self.file == TINY else folder / f"{self.file}.jsonl.gz"
        if path is None or not path.exists():
            return None
        table = read_table(path, self.tiers)
        further = path.with_name(FURTHER)
        if self.file == TINY and further.exists():
            return joined(table, read_table(further, self.tiers))
        return replace(table, tokens=table.tokens * [self.costs.get(tier, 1.0) for tier in self.tiers])


SETTINGS = (
    Setting(
        "mix", "GSM8K + MATH-500", "qwen3_8b_budget_mix", ("cap256", "cap2048"),
        "Qwen3-8B without thinking, at most 256 or 2,048 tokens.",
        apart={"gsm8k": "GSM8K alone", "math500": "MATH-500 alone"}, thorough=True,
    ),
    Setting(
        "caps", "four lengths", "qwen3_8b_budget_mix", ("cap256", "cap512", "cap1024", "cap2048"),
        "The same table with the two lengths in between.",
    ),
    Setting(
        "gsm8k", "GSM8K, 128 or 512", "gsm8k_qwen3_tiers", ("qwen3-8b/nothink@128", "qwen3-8b/nothink@512"),
        "Qwen3-8B without thinking on grade-school problems, at most 128 or 512 tokens.",
    ),
    Setting(
        "math500", "MATH-500, four lengths", "math500_qwen3_tiers",
        ("qwen3-8b/nothink@256", "qwen3-8b/nothink@512", "qwen3-8b/nothink@1024", "qwen3-8b/nothink@2048"),
        "Trained on MATH-500 alone, 368 prompts.",
    ),
    Setting(
        TINY, "tiny reasoner", TINY, ("direct", "short", "medium", "long"),
        "Our own small reasoning model, four samples per cell. Methods are trained on 4,000 other questions.",
    ),
    Setting(
        "farel", "farel, the control", "farel450_cot_tiers", ("gpt-4/default", "gpt-4/cot"),
        "Family relations with shuffled names: hardly anything but the length can be learnt here.",
    ),
    Setting(
        "lineage", "lineage", "lineage800_tiers", ("gemini-1.5-pro", "deepseek-v3"),
        "Two models on ancestor puzzles of four sizes.",
    ),
    Setting(
        "gym", "reasoning gym", "reasoning_gym_tiers", ("llama-4-scout", "llama-4-maverick"),
        "About 100 kinds of task, easy and hard. Maverick's tokens count 3.67 times: its size over Scout's.",
        costs={"llama-4-maverick": 3.67}, unit="mean tokens, in Scout's",
    ),
    Setting(
        "mmlu", "MMLU-Pro", "mmlupro_tiers", ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct"),
        "Two sizes of one model. The large one's tokens count 8.75 times: its size over the small one's.",
        costs={"llama-3.1-70b-instruct": 8.75}, unit="mean tokens, in the 8B's",
    ),
)  # fmt: skip


def joined(table: OutcomeTable, further: OutcomeTable) -> OutcomeTable:
    """One table: first the prompts to test on, as the data set `table.name`, then the further ones.

    Further prompts that are also among the first are dropped.
    """
    known = {normalised(prompt) for prompt in table.prompts}
    rest = further.take([normalised(prompt) not in known for prompt in further.prompts])
    return OutcomeTable(
        name=table.name,
        ids=table.ids + rest.ids,
        datasets=(table.name,) * len(table) + (FURTHER,) * len(rest),
        prompts=table.prompts + rest.prompts,
        tiers=table.tiers,
        correct=np.concatenate([table.correct, rest.correct]),
        tokens=np.concatenate([table.tokens, rest.tokens]),
        samples=np.concatenate([table.samples, rest.samples]),
        digest=table.digest,
        categories=table.categories + rest.categories if table.categories and rest.categories else (),
    )
