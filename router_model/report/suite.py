"""Measures all settings of docs/results.md and writes the page, its JSON and its figures."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from router_model.evaluation import experiment, learning, yardsticks
from router_model.evaluation.experiment import Comparison
from router_model.evaluation.methods import Method
from router_model.head import Head
from router_model.report import plots
from router_model.report.extra import against_rivals, learning_curve, rivals_of
from router_model.report.page import page as page_of
from router_model.report.page import short_page
from router_model.report.settings import FURTHER, SETTINGS, TINY, TOKENS, Setting
from router_model.report.summary import summarise
from router_model.training.outcomes import FOLDS, OutcomeTable

FEW = 2  # seeds for families that were left out: the families differ far more than the seeds
REPLAYS = "replays.json"
"""A file beside the results with replays of models that were never measured (`sections.never_measured`)."""
ON_UNSEEN = (
    "head, first stage",
    "prompt length",
    "TF-IDF ridge",
    "gradient boosting",
)
"""Methods that are also measured on families of prompts that they never saw."""
LEARNT = (TINY,)
"""Settings for the learning curve of `calibrate`: the included head has seen none of their prompts."""


@dataclass(frozen=True)
class MeasurementPlan:
    """What to measure."""

    methods: Sequence[Method]
    shipped: str
    """Name of the method that `thinkmeter train` trains."""
    seeds: Sequence[int]
    draws: int
    """Resamples behind each interval."""
    head: Head | None = None
    """The head whose learning curve is measured; None to leave it out."""

    @property
    def unseen(self) -> list[Method]:
        """The methods for families that were left out."""
        return [method for method in self.methods if method.name in (self.shipped, *ON_UNSEEN)]


@dataclass(frozen=True, slots=True)
class Kept:
    """A file with what a run has measured so far, so that an interrupted run can be resumed."""

    path: Path

    def read(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What an earlier run measured; empty if that run had another shipped method, seeds or draws."""
        try:
            earlier: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        same = all(earlier.get(name) == asked[name] for name in ("shipped", "seeds", "draws"))
        return earlier if same else {}

    def write(self, results: Mapping[str, Any]) -> None:
        """Replace the file as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(results) + "\n", encoding="utf-8")
        new.replace(self.path)


def measure(  # noqa: PLR0917
    plan: MeasurementPlan,
    tables: Sequence[tuple[Setting, OutcomeTable]],
    tiny: Path | None,
    tick: Callable[[str], object],
    kept: Kept | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Measure all settings; returns one JSON object. `tick` is called at each step, `kept` saves progress.

    jobs: processes that measure tables side by side. The figures do not depend on it.
    """
    started = time.perf_counter()
    results: dict[str, Any] = {
        "shipped": plan.shipped,
        "seeds": len(plan.seeds),
        "draws": plan.draws,
        "settings": {},
        "rivals": {},
        "learning": {},
        "minutes": 0.0,
    }
    results |= kept.read(results) if kept else {}
    before = results["minutes"]
    waiting = [(setting, table) for setting, table in tables if setting.key not in results["settings"]]
    for found in _each(waiting, plan, tiny, tick, jobs):
        for part, figures in found.items():
            results[part] |= figures
        results["minutes"] = round(before + (time.perf_counter() - started) / 60, 1)
        if kept:
            kept.write(results)
    return {**results, "settings": _ordered(results["settings"])}


Found = dict[str, dict[str, Any]]
"""Settings, rivals and learning curves of one table."""


def _each(
    waiting: Sequence[tuple[Setting, OutcomeTable]],
    plan: MeasurementPlan,
    tiny: Path | None,
    tick: Callable[[str], object],
    jobs: int,
) -> Iterator[Found]:
    """The figures of each table as soon as they are there. Large tables begin first if `jobs` are many."""
    if jobs == 1 or len(waiting) < 2:
        yield from (_measured(setting, table, plan, tiny, tick) for setting, table in waiting)
        return
    largest = sorted(waiting, key=lambda pair: -step_count(plan, [pair]) * len(pair[1]))
    # A forked process has the plan and the tables already; they need not be pickled, and rules cannot be.
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(jobs, fork, _begin, (largest, plan, tiny)) as pool:
        running = {pool.submit(_one, at): pair for at, pair in enumerate(largest)}
        for done in as_completed(running):
            for _ in range(step_count(plan, [running[done]])):
                tick(running[done][0].title)
            yield done.result()


_work: list[tuple[Sequence[tuple[Setting, OutcomeTable]], MeasurementPlan, Path | None]] = []


def _begin(tables: Sequence[tuple[Setting, OutcomeTable]], plan: MeasurementPlan, tiny: Path | None) -> None:
    _work.append((tables, plan, tiny))


def _one(at: int) -> Found:
    tables, plan, tiny = _work[0]
    with threadpool_limits(1):
        return _measured(*tables[at], plan, tiny, lambda _: None)


def _measured(
    setting: Setting,
    table: OutcomeTable,
    plan: MeasurementPlan,
    tiny: Path | None,
    tick: Callable[[str], object],
) -> Found:
    offered, fixed = setting.offered(table), setting.fixed(table)
    found: Found = {"settings": {}, "rivals": {}, "learning": {}}
    for key, title, comparison in _views(setting, offered, plan, tick):
        whole = yardsticks.against(yardsticks.informed(comparison, plan.shipped), fixed)
        summary = summarise(whole, title, setting.unit, plan.shipped, plan.draws)
        found["settings"][key] = {"note": setting.note, "kind": setting.kind, **summary}
        if key == setting.key and (ways := rivals_of(setting, table, tiny)):
            found["rivals"][key] = against_rivals(ways, whole, plan.shipped, plan.draws)
        tick(f"{title}: intervals")
    if plan.head and setting.key in LEARNT:
        found["learning"][setting.key] = learning_curve(
            plan.head, _tested(offered), setting.title, plan.seeds, min(plan.draws, 200), tick
        )
    return found


def _tested(table: OutcomeTable) -> OutcomeTable:
    """The prompts to test on, without those that are only there to train on."""
    return table.take([name != FURTHER for name in table.datasets])


def _whole(
    setting: Setting, table: OutcomeTable, plan: MeasurementPlan, tick: Callable[[str], object]
) -> Comparison:
    if FURTHER in table.datasets:
        return experiment.left_out(table, table.name, plan.methods, plan.seeds, tick)
    return experiment.compare(table, plan.methods, plan.seeds, tick, every=_every(setting, table))


def _every(setting: Setting, table: OutcomeTable) -> bool:
    return setting.thorough or len(table) < experiment.LARGE


def _views(
    setting: Setting, table: OutcomeTable, plan: MeasurementPlan, tick: Callable[[str], object]
) -> Iterator[tuple[str, str, Comparison]]:
    whole = _whole(setting, table, plan, tick)
    yield setting.key, setting.title, whole
    for dataset, title in setting.apart.items():
        yield f"{setting.key}-within-{dataset}", title, experiment.within(whole, dataset)
    for dataset, title in setting.apart.items():
        unseen = experiment.left_out(table, dataset, plan.methods, plan.seeds, tick)
        yield f"{setting.key}-unseen-{dataset}", f"{title.removesuffix(' alone')}, never seen", unseen
    if setting.families and table.categories:
        groups = experiment.category_groups(table, setting.families)
        unseen = experiment.left_out_groups(table, groups, plan.unseen, plan.seeds[:FEW], tick)
        yield f"{setting.key}-families", f"{setting.title}, unseen families", unseen


def step_count(plan: MeasurementPlan, tables: Sequence[tuple[Setting, OutcomeTable]]) -> int:
    """How often `measure` calls `tick`."""
    count = 0
    for setting, table in tables:
        fits = FOLDS if _every(setting, table) and FURTHER not in table.datasets else 1
        apart = len(setting.apart)
        count += len(plan.methods) * len(plan.seeds) * (fits + apart) + 1 + 2 * apart
        if setting.families and table.categories:
            count += len(plan.unseen) * len(plan.seeds[:FEW]) * setting.families + 1
        if plan.head and setting.key in LEARNT:
            count += len(learning.curve_points(_tested(setting.offered(table)))) * len(plan.seeds)
    return count


def _ordered(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The views of all tables in the order of the page."""
    order = {setting.key: place for place, setting in enumerate(SETTINGS)}
    return {key: settings[key] for key in sorted(settings, key=lambda key: order[key.partition("-")[0]])}


def merged(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    """An earlier report, with the settings that were measured again replaced; minutes add up."""
    try:
        earlier = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return results
    both = {
        part: {**earlier.get(part, {}), **results.get(part, {})}
        for part in ("settings", "rivals", "learning")
    }
    minutes = round(results["minutes"] + earlier["minutes"], 1)
    return {**earlier, **results, **both, "settings": _ordered(both["settings"]), "minutes": minutes}


def keep_replays(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write the replays of models that were never measured beside the results."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPLAYS).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def write_results(results: Mapping[str, Any], page: Path) -> None:
    """Write the page, and the JSON report and the figures into a folder of the same name."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    summaries, shipped = results["settings"], results["shipped"]
    main = [summary for key, summary in summaries.items() if "-" not in key]
    rival = next((name for name in ("TF-IDF ridge", "kNN") if name in main[0]["methods"]), shipped)
    plots.curves(main, shipped, rival, folder / "curves")
    plots.gain_bars(main, shipped, folder / "gains")
    plots.reliability(main[:4], shipped, folder / "reliability")
    replays = folder / REPLAYS
    rows = json.loads(replays.read_text(encoding="utf-8")) if replays.exists() else None
    page.write_text(page_of(results, folder.name, rows), encoding="utf-8")


def write_comparisons(comparisons: Sequence[Comparison], folder: Path, draws: int = 300) -> None:
    """Write a report on single heads: `report.json`, `report.md` and a figure of their curves."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [next(iter(comparison.cells)) for comparison in comparisons]
    summaries = [
        summarise(comparison, comparison.table.name, TOKENS, name, draws)
        for comparison, name in zip(comparisons, names, strict=True)
    ]
    (folder / "report.json").write_text(json.dumps({"tables": summaries}, indent=1) + "\n", encoding="utf-8")
    plots.curves(summaries, names[0], names[0], folder / "curves")
    (folder / "report.md").write_text(short_page(summaries, names), encoding="utf-8")
