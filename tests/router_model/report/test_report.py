"""Summaries and the page: every figure comes from a comparison, and a missed aim is called missed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_model.evaluation import experiment, metrics
from router_model.evaluation.baselines import DatasetIdentity, Neighbours
from router_model.report import page, settings, suite
from router_model.report.summary import Summary, summarise
from tests.router_model import made

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Two methods on a table where the words predict the outcome."""
    methods = (DatasetIdentity(), Neighbours(k=10))
    comparison = experiment.compare(made.table(120), methods, [0, 1], lambda _: None, every=True)
    return {"note": "Made.", **summarise(comparison, "made", "tokens", "kNN", draws=30)}


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


def test_page_names_what_is_missed(summary: Summary) -> None:
    """A missed aim is called missed and a reached aim reached."""
    weak = dict(
        summary["methods"]["kNN"]["measures"], gain_middle=[0.02, 0.01, 0.03], gap_middle=[0.9, 0.8, 1]
    )
    tiny = {
        **summary,
        "methods": {**summary["methods"], "kNN": {**summary["methods"]["kNN"], "measures": weak}},
    }

    text = page.page(
        {"settings": {"tiny": tiny}, "shipped": "kNN", "seeds": 2, "draws": 30, "minutes": 1}, "x"
    )

    assert "| tiny reasoner, middle budget: +8 over the mix | **+2.0 (1.0 to 3.0)** | **missed** |" in text
    assert "| tiny reasoner: 60 % of the way to the oracle | 90 % | reached |" in text


def test_written_report(summary: Summary, tmp_path: Path) -> None:
    """The page, its figures and its JSON are written, and every figure that the page shows exists."""
    found = {"settings": {"mix": summary}, "shipped": "kNN", "seeds": 2, "draws": 30, "minutes": 1.0}

    suite.write_results(found, tmp_path / "results.md")

    text = (tmp_path / "results.md").read_text()
    shown = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert shown
    assert all((tmp_path / one).exists() for one in shown)
    assert json.loads((tmp_path / "results/results.json").read_text()) == found


def test_measuring_some_settings_keeps_the_others(summary: Summary, tmp_path: Path) -> None:
    """A report of some settings is merged into an earlier one, in the order of the page."""
    first = {"settings": {"tiny": summary}, "shipped": "kNN", "seeds": 2, "draws": 30, "minutes": 1.0}
    suite.write_results(first, tmp_path / "results.md")

    found = suite.merged({**first, "settings": {"mix": summary}, "minutes": 2.0}, tmp_path / "results")

    assert list(found["settings"]) == ["mix", "tiny"]
    assert found["minutes"] == 3


def test_questions_to_train_on_come_after_those_to_test_on() -> None:
    """Joined tables test on the first part, and train on no prompt of it."""
    table, further = made.table(40), made.table(60, seed=1)

    both = settings.joined(table, further)

    assert both.prompts[:40] == table.prompts
    assert len(set(both.prompts)) == len(both) == 60


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """A resumed run does not repeat measurements, unless its seeds or draws differ."""
    methods = (Neighbours(k=10),)
    kept = suite.Kept(tmp_path / "interrupted.json")
    tables = [
        (replace(settings.SETTINGS[at], tiers=("short", "long")), made.table(60, seed=at)) for at in (2, 5)
    ]
    ticks: list[str] = []
    plan = suite.MeasurementPlan(methods, "kNN", range(1), 20)
    first = suite.measure(plan, tables[:1], None, ticks.append, kept)
    done = len(ticks)

    whole = suite.measure(plan, tables, None, ticks.append, kept)
    assert len(ticks) == 2 * done
    assert list(whole["settings"]) == [setting.key for setting, _ in tables]
    assert whole["settings"]["gsm8k"] == json.loads(json.dumps(first["settings"]["gsm8k"]))
    suite.measure(replace(plan, draws=21), tables, None, ticks.append, kept)
    assert len(ticks) == 4 * done
