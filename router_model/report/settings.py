"""The settings of docs/results.md: which tables, which tiers, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from router_model.evaluation.caps import uniform_caps
from router_model.evaluation.methods import Estimates
from router_model.prompts import normalised
from router_model.training.outcomes import OutcomeTable, read_table

TINY = "tiny"
FURTHER = "training.jsonl.gz"
"""The file beside the tiny reasoner's table, with questions to train on."""

TOKENS = "mean completion tokens"

KINDS: Final = {
    "thinking": "Real thinking",
    "forced": "Thinking budgets with a forced answer",
    "tiny": "Our own tiny reasoner",
    "pairs": "A small model or a large one",
    "length": "Output-length prediction",
}
"""What a table measures, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One table and its tiers, on which all methods are compared."""

    key: str
    title: str
    file: str
    tiers: tuple[str, ...]
    """The tiers that methods choose from; empty for all tiers of the table."""
    note: str
    kind: str = "thinking"
    """A key of `KINDS`."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Factors for the tokens of some tiers."""
    unit: str = TOKENS
    apart: Mapping[str, str] = field(default_factory=dict)
    """Titles of the data sets that are also measured on their own."""
    thorough: bool = False
    """Cross-validate for every seed although the table is large."""
    rungs: tuple[str, ...] = ()
    """All tiers of the fixed mix, cheapest first, if methods choose from a part of them."""
    ladder: bool = False
    """All tiers of the table are in the fixed mix, whichever they are."""
    fewest: int = 2
    """The setting is left out if the table has fewer tiers."""
    caps: tuple[int, ...] = ()
    """The cap of each rung, if the table holds runs that were cut: caps in between are computed."""
    cascades: tuple[str, ...] = ()
    """Tiers that were measured as a rival: several requests, one after the other."""
    drafts: tuple[str, str] | None = None
    """The tiers of a rival that drafts twice and thinks if the drafts disagree."""
    families: int = 0
    """Number of groups of categories to leave out; none if 0."""

    def table(self, folder: Path, tiny: Path | None) -> OutcomeTable | None:
        """The table with its costs and the tiers that methods choose from; None if there is no file.

        Raises: OutcomeError.
        """
        table = self.whole(folder, tiny)
        return self.offered(table) if table else None

    def whole(self, folder: Path, tiny: Path | None) -> OutcomeTable | None:
        """The table with every tier that the setting names, those of the fixed mix and of rivals too.

        Raises: OutcomeError.
        """
        path = tiny if self.file == TINY else folder / f"{self.file}.jsonl.gz"
        if path is None or not path.exists():
            return None
        named = dict.fromkeys((*self.tiers, *self.rungs, *self.cascades, *(self.drafts or ())))
        table = read_table(path, None if self.ladder else tuple(named) or None)
        if len(table.tiers) < self.fewest:
            return None
        further = path.with_name(FURTHER)
        if self.file == TINY and further.exists():
            return joined(table, read_table(further, table.tiers))
        return replace(table, tokens=table.tokens * [self.costs.get(tier, 1.0) for tier in table.tiers])

    def offered(self, table: OutcomeTable) -> OutcomeTable:
        """The tiers that methods choose from."""
        return table.select(self.tiers) if self.tiers else table

    def fixed(self, table: OutcomeTable) -> Estimates:
        """Outcomes of everything that the fixed mix may use, [N, K]."""
        if self.ladder:
            return Estimates(table.correct, table.tokens)
        every = table.select(self.rungs) if self.rungs else self.offered(table)
        return uniform_caps(every, self.caps) if self.caps else Estimates(every.correct, every.tokens)


_NOTHINK = tuple(f"qwen3-8b/nothink@{cap}" for cap in (256, 512, 1024, 2048))
_ON_OFF = ("qwen3-8b-vllm/nothink", *(f"qwen3-8b-vllm/think@{cap}" for cap in (1024, 2048, 4096)))
_CAPS = ("cap256", "cap512", "cap1024", "cap2048")
_CUT = "Thoughts were cut without a forced answer, so predicting the length of the thought is part of it."

SETTINGS = (
    Setting(
        "bbh27b", "BBH, Qwen3.5-27B", "bbh_qwen35_27b_thinking", ("t1024", "t2048", "t4096"),
        f"Thinking, cut at 1,024, 2,048 or 4,096 tokens; 13 tasks of BIG-Bench Hard. {_CUT}",
        "thinking", caps=(1024, 2048, 4096), families=5,
    ),
    Setting(
        "math27b", "MATH-500, Qwen3.5-27B", "math500_qwen35_27b_thinking", ("t2048", "t4096", "t8192"),
        f"Thinking, cut at 2,048, 4,096 or 8,192 tokens. {_CUT}",
        "thinking", caps=(2048, 4096, 8192), families=5,
    ),
    Setting(
        "onoff", "GSM8K, Qwen3-8B on or off", "gsm8k_qwen3_tiers",
        (_ON_OFF[0], _ON_OFF[-1]),
        "Thinking off, or on and cut at 4,096 tokens. Cuts at 1,024 and 2,048 are in the fixed mix.",
        "thinking", thorough=True, rungs=_ON_OFF, drafts=(_ON_OFF[0], _ON_OFF[-1]),
    ),
    Setting(
        "forced27b", "GSM8K, Qwen3.5-27B", "gsm8k_qwen35_27b_forced", ("t128", "t256", "t512"),
        "The thought was ended after 128, 256 or 512 tokens and an answer forced.", "forced",
    ),
    Setting(
        "forced8b", "GSM8K, Qwen3-8B", "gsm8k_qwen3_8b_forced", ("t128", "t256", "t512"),
        "The thought was ended after 128, 256 or 512 tokens and an answer forced.", "forced",
    ),
    Setting(
        "forcedr1", "GSM8K, R1-Distill-Llama-8B", "gsm8k_r1_llama8b_forced", ("t256", "t512", "t1024"),
        "The thought was ended after 256, 512 or 1,024 tokens and an answer forced.", "forced",
    ),
    Setting(
        "rungs", "tiny reasoner, every budget", TINY, (),
        "Our own small reasoning model, four samples per cell, at every thinking budget that was measured."
        " Methods are trained on 4,000 other questions.", "tiny", ladder=True, fewest=5,
    ),
    Setting(
        TINY, "tiny reasoner, four tiers", TINY, ("direct", "short", "medium", "long"),
        "The same model at its named tiers. The fixed mix still has every measured budget.",
        "tiny", ladder=True, families=6,
    ),
    Setting(
        "gym", "reasoning gym", "reasoning_gym_tiers", ("llama-4-scout", "llama-4-maverick"),
        "About 100 kinds of task, easy and hard. Maverick's tokens count 3.67 times: its size over Scout's.",
        "pairs", costs={"llama-4-maverick": 3.67}, unit="mean tokens, in Scout's", families=5,
    ),
    Setting(
        "mmlu", "MMLU-Pro", "mmlupro_tiers", ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct"),
        "Two sizes of one model. The large one's tokens count 8.75 times: its size over the small one's.",
        "pairs", costs={"llama-3.1-70b-instruct": 8.75}, unit="mean tokens, in the 8B's", families=5,
    ),
    Setting(
        "lineage", "lineage", "lineage800_tiers", ("gemini-1.5-pro", "deepseek-v3"),
        "Two models on ancestor puzzles of four sizes.", "pairs", families=4,
    ),
    Setting(
        "farel", "farel, the control", "farel450_cot_tiers", ("gpt-4/default", "gpt-4/cot"),
        "Family relations with shuffled names: hardly anything but the length can be learnt here.", "pairs",
    ),
    Setting(
        "mix", "GSM8K + MATH-500, two caps", "qwen3_8b_budget_mix", ("cap256", "cap2048"),
        "Qwen3-8B without thinking, at most 256 or 2,048 tokens.", "length",
        apart={"gsm8k": "GSM8K alone", "math500": "MATH-500 alone"}, thorough=True,
        rungs=_CAPS, caps=(256, 512, 1024, 2048),
    ),
    Setting(
        "caps", "GSM8K + MATH-500, four caps", "qwen3_8b_budget_mix", _CAPS,
        "The same table with the two caps in between.", "length", caps=(256, 512, 1024, 2048),
    ),
    Setting(
        "gsm8k", "GSM8K, 128 or 512", "gsm8k_qwen3_tiers", ("qwen3-8b/nothink@128", "qwen3-8b/nothink@512"),
        "Qwen3-8B without thinking on grade-school problems, at most 128 or 512 tokens.", "length",
        rungs=("qwen3-8b/nothink@128", "qwen3-8b/nothink@256", "qwen3-8b/nothink@512"), caps=(128, 256, 512),
    ),
    Setting(
        "math500", "MATH-500, four caps", "math500_qwen3_tiers", _NOTHINK,
        "Trained on MATH-500 alone, 368 prompts.", "length", caps=(256, 512, 1024, 2048),
        cascades=("qwen3-8b/cascade512-2048", "qwen3-8b/cascade512-4096"),
    ),
)  # fmt: skip


def joined(table: OutcomeTable, further: OutcomeTable) -> OutcomeTable:
    """One table: first the prompts to test on, as the data set `table.name`, then the further ones.

    Further prompts that are also among the first are dropped.
    """
    known = {normalised(prompt) for prompt in table.prompts}
    rest = further.take([normalised(prompt) not in known for prompt in further.prompts])
    return replace(
        table,
        ids=table.ids + rest.ids,
        datasets=(table.name,) * len(table) + (FURTHER,) * len(rest),
        prompts=table.prompts + rest.prompts,
        correct=np.concatenate([table.correct, rest.correct]),
        tokens=np.concatenate([table.tokens, rest.tokens]),
        samples=np.concatenate([table.samples, rest.samples]),
        lengths=table.lengths,
        categories=table.categories + rest.categories if table.categories and rest.categories else (),
    )
