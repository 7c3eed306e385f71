"""The gate of the second stage: does IBPO lose nothing in domain, and win outside of it?

python -m router_model.report.gate DATA --tiny OUTCOMES --out FILE.json

Every objective is measured against the first stage alone, on the same folds and seeds. The rule is in
docs/decisions/0008-ibpo-is-the-second-stage.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from router_model.evaluation import experiment, metrics
from router_model.evaluation.experiment import Cell, assemble, cross_fit
from router_model.evaluation.metrics import calibration_error, interval
from router_model.evaluation.ours import FIRST_STAGE, HeadMethod
from router_model.report.settings import FURTHER, SETTINGS, TINY, Setting
from router_model.training.objectives import OBJECTIVES
from router_model.training.outcomes import FOLDS, OutcomeTable

ALLOWED_LOSS = 0.2
"""Points of AIQ that the second stage may lose on a table."""

_THINKING = (
    ("bbh_qwen35_27b_thinking", ("t1024", "t2048", "t4096")),
    ("math500_qwen35_27b_thinking", ("t2048", "t4096", "t8192")),
    ("gsm8k_qwen35_27b_forced", ("t128", "t256", "t512")),
    ("gsm8k_qwen3_8b_forced", ("t128", "t256", "t512")),
    ("gsm8k_r1_llama8b_forced", ("t256", "t512", "t1024")),
)
_UNSEEN = {TINY: "families", "gym": "tasks", "mmlu": "subjects"}
"""Settings that are also measured on categories of prompts that were not trained on."""

_SEEDS_APART = 2  # repetitions of the settings above, each of five fits on thousands of prompts


class _Row(msgspec.Struct):
    prompt: str
    category: str | None = None


@dataclass(frozen=True)
class Trial:
    """One table and the prompts to test on."""

    key: str
    table: OutcomeTable
    seen: bool
    """Whether prompts of the same kind are trained on."""
    tests: Sequence[Sequence[NDArray[np.bool_]]]
    """Masks of the rows that are tested together, by seed. Each is predicted without itself."""


def trials(data: Path, tiny: Path | None, seeds: int) -> Iterator[Trial]:
    """All trials whose tables exist."""
    for setting in (*SETTINGS, *_further()):
        table = setting.table(data, tiny)
        if table is None:
            continue
        yield Trial(setting.key, table, True, [list(_parts(setting, table, seed)) for seed in range(seeds)])
        for dataset in setting.apart:
            test = np.array([name == dataset for name in table.datasets])
            yield Trial(f"{setting.key}, {dataset} unseen", table, False, [[test]] * seeds)
        if setting.key in _UNSEEN:
            path = tiny if setting.key == TINY and tiny else data / f"{setting.file}.jsonl.gz"
            groups = _groups(table, path)
            repeated = [list(groups(seed)) for seed in range(min(seeds, _SEEDS_APART))]
            yield Trial(f"{setting.key}, {_UNSEEN[setting.key]} unseen", table, False, repeated)


def _further() -> Iterator[Setting]:
    listed = {setting.file for setting in SETTINGS}
    for file, tiers in _THINKING:
        if file not in listed:
            yield Setting(file, file, file, tiers, "", thorough=True)


def _parts(setting: Setting, table: OutcomeTable, seed: int) -> Iterator[NDArray[np.bool_]]:
    if FURTHER in table.datasets:
        yield np.array([name == table.name for name in table.datasets])
    else:
        every = setting.thorough or len(table) < experiment.LARGE
        yield from experiment.parts(table, seed, every=every)


def _groups(table: OutcomeTable, path: Path) -> Callable[[int], Iterator[NDArray[np.bool_]]]:
    """Five groups of the table's categories, drawn by seed."""
    kind: dict[str, str] = {}
    for source in (path, path.with_name(FURTHER)):
        if source.exists():
            lines = gzip.decompress(source.read_bytes()).splitlines()
            rows = (msgspec.json.decode(line, type=_Row) for line in lines if line.strip())
            kind |= {row.prompt: row.category or "" for row in rows}
    own = np.array([kind[prompt] for prompt in table.prompts])

    def drawn(seed: int) -> Iterator[NDArray[np.bool_]]:
        names = np.random.default_rng(seed).permutation(np.unique(own))
        for group in np.array_split(names, FOLDS):
            yield np.isin(own, group)

    return drawn


def try_methods(trial: Trial, methods: Sequence[HeadMethod], draws: int) -> dict[str, Any]:
    """AIQ gain of each method over the best fixed mix, and how it differs from the first stage, in points."""
    cells: dict[str, list[Cell]] = {method.name: [] for method in methods}
    for seed, tests in enumerate(trial.tests):
        for method in methods:  # in turn, because they share the first stage of each fit
            cells[method.name].append(cross_fit(method, trial.table, seed, tests, lambda _: None))
    whole = assemble(trial.table, "", cells, [np.any(tests, axis=0) for tests in trial.tests])
    sweeps = {name: [cell.sweep for cell in of_method] for name, of_method in cells.items()}
    drawn = metrics.bootstrap(sweeps, whole.tiers, None, len(trial.table), draws, seed=0)
    gains = {name: 100 * figures["aiq_gain"] for name, figures in drawn.items()}
    return {
        "seen": trial.seen,
        "prompts": len(np.unique(np.concatenate([sweep.rows for sweep in whole.tiers]))),
        "seeds": len(trial.tests),
        "methods": {
            name: {
                "gain": _rounded(interval(gain)),
                "difference": _rounded(interval(gain - gains[FIRST_STAGE])),
                "calibration_error": round(100 * _calibration(trial.table, cells[name]), 2),
                "seconds": round(float(np.mean([cell.seconds for cell in cells[name]])), 2),
            }
            for name, gain in gains.items()
        },
    }


def _rounded(figures: tuple[float, float, float]) -> list[float]:
    return [round(figure, 2) for figure in figures]


def _calibration(table: OutcomeTable, cells: Sequence[Cell]) -> float:
    """Mean expected calibration error of P(right) over tiers and seeds."""
    errors = [
        calibration_error(cell.estimates.correct[:, tier], table.correct[cell.sweep.rows, tier])
        for cell in cells
        if cell.estimates
        for tier in range(len(table.tiers))
    ]
    return float(np.mean(errors))


def verdict(results: Mapping[str, Mapping[str, Any]], method: str) -> dict[str, Any]:
    """Whether a method passes: not worse by more than ALLOWED_LOSS on any table seen, and better elsewhere.

    Better means: worse by more than ALLOWED_LOSS in no trial of unseen prompts, and above zero in their mean.
    """
    differences = {key: trial["methods"][method]["difference"][0] for key, trial in results.items()}
    inside = {key: points for key, points in differences.items() if results[key]["seen"]}
    outside = {key: points for key, points in differences.items() if not results[key]["seen"]}
    failed = [key for key, points in differences.items() if points < -ALLOWED_LOSS]
    mean = float(np.mean(list(outside.values()))) if outside else float("nan")
    return {
        "passes": not failed and mean > 0,
        "failed": failed,
        "inside": round(float(np.mean(list(inside.values()))), 3) if inside else None,
        "outside": round(mean, 3),
    }


def run_gate() -> None:
    """Measure, print one line per trial and method, and write the file. A file that exists is continued."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of outcome tables")
    parser.add_argument("--tiny", type=Path, help="outcomes of the tiny reasoner")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=200, help="resamples behind each interval")
    parser.add_argument("--only", nargs="*", help="measure only these trials")
    parser.add_argument("--objectives", nargs="*", choices=OBJECTIVES, default=list(OBJECTIVES))
    asked = parser.parse_args()
    methods = [HeadMethod(FIRST_STAGE, objective=None)]
    methods += [HeadMethod(name, objective=name) for name in asked.objectives]
    results = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    for trial in trials(asked.data, asked.tiny, asked.seeds):
        if trial.key in results or (asked.only and trial.key not in asked.only):
            continue
        results[trial.key] = try_methods(trial, methods, asked.draws)
        asked.out.write_text(json.dumps(results, indent=1) + "\n")
        for name, figures in results[trial.key]["methods"].items():
            sys.stdout.write(f"{trial.key} | {name} | {figures}\n")
        sys.stdout.flush()
    if results:
        for name in asked.objectives:
            sys.stdout.write(f"{name}: {verdict(results, name)}\n")


if __name__ == "__main__":
    run_gate()
