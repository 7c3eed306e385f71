"""Measures all settings of docs/results.md and writes the page, its JSON and its figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router_model.evaluation import experiment, voting
from router_model.evaluation.experiment import Comparison
from router_model.evaluation.methods import Method
from router_model.report import plots
from router_model.report.page import page as page_of
from router_model.report.page import short_page
from router_model.report.settings import FURTHER, SETTINGS, TINY, TOKENS, Setting
from router_model.report.summary import summarise
from router_model.training.outcomes import FOLDS, OutcomeTable


@dataclass(frozen=True)
class MeasurementPlan:
    """What to measure."""

    methods: Sequence[Method]
    shipped: str
    """Name of the method that `thinkmeter train` trains."""
    seeds: Sequence[int]
    draws: int
    """Resamples behind each interval."""


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


def measure(
    plan: MeasurementPlan,
    tables: Sequence[tuple[Setting, OutcomeTable]],
    tiny: Path | None,
    tick: Callable[[str], object],
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Measure all settings; returns one JSON object. `tick` is called at each step, `kept` saves progress."""
    started = time.perf_counter()
    results: dict[str, Any] = {
        "shipped": plan.shipped,
        "seeds": len(plan.seeds),
        "draws": plan.draws,
        "settings": {},
        "minutes": 0.0,
    }
    results |= kept.read(results) if kept else {}
    before = results["minutes"]
    for setting, table in tables:
        if setting.key in results["settings"]:
            continue
        whole = _whole(setting, table, plan, tick)
        for key, title, comparison in _views(setting, whole, plan, tick):
            summary = summarise(comparison, title, setting.unit, plan.shipped, plan.draws)
            results["settings"][key] = {"note": setting.note, **summary}
            tick(f"{title}: intervals")
        if setting.key == TINY and tiny:
            results["voting"], results["voting_is_bound"] = _voting(tiny, table, whole, plan)
        results["minutes"] = round(before + (time.perf_counter() - started) / 60, 1)
        if kept:
            kept.write(results)
    return results


def _whole(
    setting: Setting, table: OutcomeTable, plan: MeasurementPlan, tick: Callable[[str], object]
) -> Comparison:
    if FURTHER in table.datasets:
        return experiment.left_out(table, table.name, plan.methods, plan.seeds, tick)
    return experiment.compare(table, plan.methods, plan.seeds, tick, every=_every(setting, table))


def _every(setting: Setting, table: OutcomeTable) -> bool:
    return setting.thorough or len(table) < experiment.LARGE


def _views(
    setting: Setting, whole: Comparison, plan: MeasurementPlan, tick: Callable[[str], object]
) -> Iterator[tuple[str, str, Comparison]]:
    yield setting.key, setting.title, whole
    for dataset, title in setting.apart.items():
        yield f"{setting.key}-within-{dataset}", title, experiment.within(whole, dataset)
    for dataset, title in setting.apart.items():
        unseen = experiment.left_out(whole.table, dataset, plan.methods, plan.seeds, tick)
        yield f"{setting.key}-unseen-{dataset}", f"{title.removesuffix(' alone')}, never seen", unseen


def step_count(plan: MeasurementPlan, tables: Sequence[tuple[Setting, OutcomeTable]]) -> int:
    """How often `measure` calls `tick`."""
    count = 0
    for setting, table in tables:
        fits = FOLDS if _every(setting, table) else 1
        apart = len(setting.apart)
        count += len(plan.methods) * len(plan.seeds) * (fits + apart) + 1 + 2 * apart
    return count


def _voting(
    path: Path, table: OutcomeTable, whole: Comparison, plan: MeasurementPlan
) -> tuple[list[dict[str, Any]], bool]:
    """Contests, and whether voting is only bounded from above because the table lacks single answers."""
    tested = table.take([name != FURTHER for name in table.datasets])  # these come first
    exact = voting.ballots(path, tested.ids)
    cast = exact or voting.upper_bounds(tested)
    routed = [cell.sweep for cell in whole.cells[plan.shipped]]
    contests = voting.contests(cast, routed, whole.tiers, plan.draws, seed=0) if cast else []
    return [asdict(contest) for contest in contests], not exact


def merged(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of an earlier report, with those that were measured again replaced; minutes add up."""
    try:
        earlier = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return results
    everything = {**earlier["settings"], **results["settings"]}
    order = [setting.key for setting in SETTINGS]
    kept = sorted(everything, key=lambda key: order.index(key.partition("-")[0]))
    minutes = round(results["minutes"] + earlier["minutes"], 1)
    return {**earlier, **results, "settings": {key: everything[key] for key in kept}, "minutes": minutes}


def write_results(results: Mapping[str, Any], page: Path) -> None:
    """Write the page, and the JSON report and the figures into a folder of the same name."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    summaries, shipped = results["settings"], results["shipped"]
    main = [summary for key, summary in summaries.items() if "-" not in key]
    rival = next((name for name in ("kNN",) if name in main[0]["methods"]), shipped)
    plots.curves(main, shipped, rival, folder / "curves")
    plots.gains(main, shipped, folder / "gains")
    apart = [summary for key, summary in summaries.items() if "-" in key]
    if apart:
        plots.curves(apart, shipped, rival, folder / "apart")
    plots.reliability(main[:4], shipped, folder / "reliability")
    beside = page.with_name("headline.json")
    headline = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else None
    page.write_text(page_of(results, folder.name, headline), encoding="utf-8")


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
