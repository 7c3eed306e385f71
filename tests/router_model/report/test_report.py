"""Summaries and the page: every figure comes from a comparison, and a missed aim is called missed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_model.evaluation import experiment, metrics
from router_model.evaluation.baselines import DatasetIdentity, Neighbours
from router_model.report import aims, extra, page, settings, suite
from router_model.report.summary import Summary, summarise
from router_model.training.outcomes import OutcomeTable
from tests.router_model import made

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Two methods on a table where the words predict the outcome."""
    methods = (DatasetIdentity(), Neighbours(k=10))
    comparison = experiment.compare(made.table(120), methods, [0, 1], lambda _: None, every=True)
    return {"note": "Made.", "kind": "thinking", **summarise(comparison, "made", "tokens", "kNN", draws=30)}


def test_summary_is_json(summary: Summary) -> None:
    """Nothing in a summary is NaN or infinite, so that any reader of JSON can read it."""
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_holds_estimate_and_bounds(summary: Summary) -> None:
    """Each measure is an estimate within its bounds, and all five budgets are there."""
    found = summary["methods"]["kNN"]["measures"]

    for budget in metrics.BUDGETS:
        value, low, high = found[f"gain_{budget}"]
        assert low <= value <= high
    assert summary["methods"]["kNN"]["measures"]["gain_middle"][1] > 0
    assert summary["methods"]["kNN"]["ahead"]["gain_middle"] == [0, 0, 0]


def test_curves_of_a_summary_share_budgets(summary: Summary) -> None:
    """Mix, oracle and methods are read at the same budgets, and no method is above the oracle."""
    best = np.array(summary["oracle_curve"])

    assert len(summary["budgets"]) == len(best) == len(summary["mix_curve"])
    for method in summary["methods"].values():
        assert (np.array(method["curve"]) <= best + 1e-4).all()


def with_gain(
    summary: Summary, bounds: list[float], sure: float, kind: str = "thinking", **more: list[float]
) -> Summary:
    """The summary with another AIQ gain and p-value of the shipped method."""
    own = summary["methods"]["kNN"]
    changed = {**own, "measures": {**own["measures"], "aiq_gain": bounds, **more}, "p_value": sure}
    return {**summary, "kind": kind, "methods": {**summary["methods"], "kNN": changed}}


def test_gains_are_less_those_by_chance(summary: Summary) -> None:
    """A method that tells nothing apart gains by chance at most, and little is left of that."""
    same = summary["methods"]["data set identity"]

    assert same["by_chance"] >= 0
    assert same["measures"]["aiq_gain"][0] < 0.02
    assert summary["methods"]["kNN"]["p_value"] < 0.1


def test_claims_are_corrected_together(summary: Summary) -> None:
    """With two claims the smaller p-value is doubled; a gain that is not sure is not shown."""
    summaries = {
        "bbh27b": with_gain(summary, [0.03, 0.01, 0.05], 0.02),
        "math27b": with_gain(summary, [0.02, -0.01, 0.04], 0.04),
        "gym": with_gain(summary, [-0.02, -0.03, -0.01], 1.0, "pairs"),
        "farel": with_gain(summary, [0.2, 0.1, 0.3], 0.001, "pairs"),
    }

    assert aims.adjusted(summaries, "kNN") == pytest.approx({"bbh27b": 0.06, "math27b": 0.08, "gym": 1.0})
    assert [one.verdict for one in aims.aims(summaries, "kNN")] == [
        "not shown", "not shown", "**missed**", "reached",
    ]  # fmt: skip
    alone = {"bbh27b": summaries["bbh27b"]}
    assert [one.verdict for one in aims.aims(alone, "kNN")] == ["reached"]


def test_unseen_families_must_beat_prompt_length(summary: Summary) -> None:
    """A gain on unseen families is not enough if the length of the prompt alone gains more."""
    view = with_gain(summary, [0.02, 0.01, 0.03], 0.01)
    length = {"measures": {"aiq_gain": [0.05, 0.04, 0.06]}, "ahead": {"aiq_gain": [-0.03, -0.04, -0.02]}}
    view = {**view, "methods": {**view["methods"], "prompt length": length}}

    (_, unseen) = aims.aims({"gym": {**summary, "kind": "pairs"}, "gym-families": view}, "kNN")

    assert unseen.verdict == "**missed**"


def test_page_leads_with_thinking(summary: Summary) -> None:
    """Tables of real thinking come first and output caps last, whatever was measured first."""
    summaries = {"mix": {**summary, "kind": "length", "title": "caps"}, "bbh27b": summary}

    text = page.page(
        {"settings": summaries, "shipped": "kNN", "seeds": 2, "draws": 30, "minutes": 1}, "results"
    )

    assert 0 < text.index("***Real thinking***") < text.index("***Output-length prediction***")
    assert text.index("#### made") < text.index("#### caps")


def test_page_shows_what_others_measured(summary: Summary) -> None:
    """Rivals, learning curves and models that were never measured each have their section."""
    budgets = {name: {"rival": [0.01, 0, 0.02], "router": [0.02, 0.01, 0.03]} for name in metrics.BUDGETS}
    option = {"name": "once", "tokens": 9.0, "accuracy": 0.5}
    keys = ("gain_lean", "gain_middle", "gain_ample", "aiq_gain")
    gain = {key: [0.011, 0.0, 0.02] for key in keys}
    found = {
        "settings": {"bbh27b": summary},
        "rivals": {"bbh27b": {"votes": {"budgets": budgets, "options": [option]}}},
        "learning": {
            "bbh27b": {
                "title": "made", "head": "general-1", "prompts": 120,
                "points": [{"prompts": 25, "samples": 1, **gain}],
            }
        },
        "shipped": "kNN", "seeds": 2, "draws": 30, "minutes": 1,
    }  # fmt: skip
    replay = {
        "table": "never",
        "fixed": [{"tier": "direct", "tokens": 5.0, "accuracy": 0.4}],
        "default": {"tokens": 1234.0, "accuracy": 0.62},
        "default_loss": -0.01, "loss": 0.004, "gain": 0.02, "token_ratio": 1.1,
    }  # fmt: skip
    replays = [replay | {"own": 0}, replay | {"own": 50}]

    text = page.page(found, "results", replays=replays)

    assert "| made: votes | +1.0 (0.0 to 2.0) / **+2.0 (1.0 to 3.0)** |" in text
    assert "| made | votes, once | 9 | 50.0 % |" in text
    assert "| 25 | 1 | +1.1 (0.0 to 2.0) |" in text
    assert "| never | prior | 0.4 | +2.0 | 1,234, 62.0 % | +0.010 | 1.10 | 40.0 % at 5 |" in text
    assert "| never | 50 own | 0.4 | +2.0 |" in text


def test_written_report(summary: Summary, tmp_path: Path) -> None:
    """The page, its figures and its JSON are written, and every figure that the page shows exists."""
    found = {"settings": {"mix": summary}, "shipped": "kNN", "seeds": 2, "draws": 30, "minutes": 1.0}

    suite.write_results(found, tmp_path / "results.md")

    text = (tmp_path / "results.md").read_text()
    shown = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert shown
    assert all((tmp_path / one).exists() for one in shown if one != "headline.md")
    assert json.loads((tmp_path / "results/results.json").read_text()) == found


def test_measuring_some_settings_keeps_the_others(summary: Summary, tmp_path: Path) -> None:
    """A report of some settings is merged into an earlier one, in the order of the page."""
    first = {"settings": {"mix": summary}, "shipped": "kNN", "seeds": 2, "draws": 30, "minutes": 1.0}
    suite.write_results({**first, "rivals": {"mix": {}}}, tmp_path / "results.md")

    found = suite.merged({**first, "settings": {"tiny": summary}, "minutes": 2.0}, tmp_path / "results")

    assert list(found["settings"]) == ["tiny", "mix"]
    assert found["minutes"] == 3
    assert found["rivals"] == {"mix": {}}


def test_a_setting_reads_all_tiers_and_offers_its_own(tmp_path: Path) -> None:
    """Methods choose from the setting's tiers; the fixed mix has all rungs and the caps between them."""
    table = made.table(30)
    made.write(table, tmp_path / "t.jsonl.gz")
    setting = settings.Setting("k", "made", "t", ("short",), "", rungs=("short", "long"), caps=(16, 128))

    whole, offered = setting.whole(tmp_path, None), setting.table(tmp_path, None)

    assert whole is not None
    assert offered is not None
    assert (whole.tiers, offered.tiers) == (("short", "long"), ("short",))
    assert setting.fixed(whole).tokens.shape == (30, 5)
    assert replace(setting, fewest=3).table(tmp_path, None) is None
    assert replace(setting, file="none").table(tmp_path, None) is None


def test_questions_to_train_on_come_after_those_to_test_on() -> None:
    """Joined tables test on the first part, and train on no prompt of it."""
    table, further = made.table(40), made.table(60, seed=1)

    both = settings.joined(table, further)

    assert both.prompts[:40] == table.prompts
    assert len(set(both.prompts)) == len(both) == 60


def small(*places: int) -> list[tuple[settings.Setting, OutcomeTable]]:
    """Settings of the page on made tables."""
    chosen = [replace(settings.SETTINGS[at], tiers=("short", "long")) for at in places]
    return [(setting, made.table(60, seed=at)) for at, setting in zip(places, chosen, strict=True)]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """A resumed run does not repeat measurements, unless its seeds or draws differ."""
    methods = (Neighbours(k=10),)
    kept = suite.Kept(tmp_path / "interrupted.json")
    tables = small(3, 5)
    ticks: list[str] = []
    plan = suite.MeasurementPlan(methods, "kNN", range(1), 20)
    first = suite.measure(plan, tables[:1], None, ticks.append, kept)
    done = len(ticks)

    whole = suite.measure(plan, tables, None, ticks.append, kept)
    assert done == suite.step_count(plan, tables[:1])
    assert len(ticks) == 2 * done
    assert list(whole["settings"]) == [setting.key for setting, _ in tables]
    assert whole["settings"]["forced27b"] == json.loads(json.dumps(first["settings"]["forced27b"]))
    suite.measure(replace(plan, draws=21), tables, None, ticks.append, kept)
    assert len(ticks) == 4 * done


def test_jobs_do_not_change_figures() -> None:
    """Two processes measure the same as one, except for the time that fits take."""
    plan = suite.MeasurementPlan((Neighbours(k=10),), "kNN", range(1), 20)
    ticks: list[str] = []

    one, two = (suite.measure(plan, small(3, 5), None, ticks.append, jobs=jobs) for jobs in (1, 2))

    assert len(ticks) == 2 * suite.step_count(plan, small(3, 5))
    for key, summary in one["settings"].items():
        for name, method in summary["methods"].items():
            del method["seconds"], two["settings"][key]["methods"][name]["seconds"]
    assert one["settings"] == two["settings"]


def test_votes_are_upper_bounds_without_answers(tmp_path: Path) -> None:
    """The tiny reasoner's rivals are bounds as long as its table holds only shares of right answers."""
    table = made.table(40, samples=4)
    path = made.write(table, tmp_path / "t.jsonl")
    setting = replace(settings.SETTINGS[0], key="tiny", tiers=("short", "long"))

    found = extra.rivals_of(setting, table, path)

    assert list(found) == ["self-consistency (upper bound)", "adaptive consistency (upper bound)"]
    assert len(found["adaptive consistency (upper bound)"]) > len(found["self-consistency (upper bound)"])
