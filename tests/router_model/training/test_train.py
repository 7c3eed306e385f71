"""Training learns what can be learnt, is deterministic, and refuses tables it cannot use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from router_model.evaluation.methods import Estimates
from router_model.evaluation.metrics import calibration_error
from router_model.evaluation.ours import FittedHead
from router_model.head import Head
from router_model.predictor import TierLength
from router_model.training import tier_curves, train
from router_model.training.calibrate import calibrate, inputs_of
from router_model.training.outcomes import OutcomeError, OutcomeTable
from router_model.training.train import Trained, TrainingSettings
from tests.router_model.synthetic import gain_over_mix, synthetic

ASKED = [TierLength("direct", 0, 50), TierLength("short", 100, 50), TierLength("long", 600, 50)]
HARD = "river stone: what is 11 + 12" + " + 13" * 10 + "?"


def estimates(trained: Trained, table: OutcomeTable) -> Estimates:
    """The head's estimates for another table of the same kind."""
    return FittedHead(trained.head, trained.plain["made"]).estimate(table)


def test_beats_the_mix_where_there_is_signal(trained: Trained) -> None:
    """On new prompts the decisions are at least 8 points better than the best mix of fixed tiers."""
    fresh = synthetic(600, 2, learnable=True)

    assert gain_over_mix(*estimates(trained, fresh), fresh) > 0.08


def test_loses_nothing_where_there_is_none() -> None:
    """Without signal all prompts look alike, and the decisions are as good as the mix."""
    blind = train.fit_head([synthetic(500, 3, learnable=False)], TrainingSettings(members=1))
    fresh = synthetic(2000, 4, learnable=False)

    found = estimates(blind, fresh).correct
    assert (found[:, 2] - found[:, 0]).std() < 0.05
    assert gain_over_mix(*estimates(blind, fresh), fresh) > -0.01


def test_corrections_improve_calibration(trained: Trained) -> None:
    """Overconfident predictions become better calibrated; what is served is calibrated on new prompts."""
    fresh = synthetic(1500, 5, learnable=True)
    view = trained.views[0]
    raw = 3 * view.linear
    repaired = tier_curves.apply_correction(tier_curves.correct_by(raw, view.table), raw, view.table)[0]
    distorted = 1 / (1 + np.exp(-np.clip(raw[:, :3], -30, 30)))
    served = estimates(trained, fresh).correct

    for tier in range(3):
        truth = view.table.correct[:, tier]
        assert calibration_error(repaired[:, tier], truth) < calibration_error(distorted[:, tier], truth)
        assert calibration_error(served[:, tier], fresh.correct[:, tier]) < 0.06


def test_same_seed_same_bytes(table: OutcomeTable, tmp_path: Path) -> None:
    """Training is deterministic down to the digest."""
    small = table.take(np.arange(120))
    one, two = (train.train([small], tmp_path / name, 3, ["m"]) for name in ("a", "b"))

    assert one.digest == two.digest
    assert set(one.sets) == {"m"}


def test_calibrates_a_new_model(saved: Path) -> None:
    """The tiers of another model are learnt from 150 outcomes with the trunk frozen."""
    head = Head.load(saved)
    other = replace(synthetic(150, 8, learnable=True, name="new"), tiers=("a", "b", "c"))
    tuned = calibrate(head, other)
    fresh = synthetic(600, 9, learnable=True)
    seen = inputs_of(tuned, fresh).astype(np.float32)

    assert gain_over_mix(*tuned.sets["new"].outcomes(seen), fresh) > 0.06
    assert tuned.trunk is head.trunk
    with pytest.raises(OutcomeError, match="too few"):
        calibrate(head, other.take(np.arange(5)))


def test_the_manifest_says_how_sure_each_tier_is(trained: Trained, table: OutcomeTable) -> None:
    """The means are those of the outcomes, within their errors, which are smaller than those of guesses."""
    entries = trained.head.manifest["metrics"]["made"]["tiers"]

    assert list(entries) == list(table.tiers)
    for column, tier in enumerate(table.tiers):
        for name, outcome in (("correct", table.correct[:, column]), ("tokens", table.tokens[:, column])):
            mean, error = entries[tier][name], entries[tier][f"{name}_error"]
            assert mean == pytest.approx(outcome.mean(), abs=4 * error + 0.01)
            assert 0 <= error <= outcome.std() / np.sqrt(len(table)) + 1e-4


def test_budgets_that_a_table_states_become_lengths_of_the_curves(saved: Path) -> None:
    """A calibrated model can then be asked at any thinking budget."""
    budgets = {"long": 600.0, "direct": 0.0, "short": 100.0}
    other = replace(synthetic(120, 8, learnable=True, name="new"), lengths=budgets)
    tuned = calibrate(Head.load(saved), other)
    between = tuned.predict(HARD, "new", [TierLength(None, budget, 50) for budget in (100, 200, 600)])

    assert list(tuned.sets["new"].lengths.items()) == sorted(budgets.items(), key=lambda item: item[1])
    assert between.correct[0] < between.correct[1] < between.correct[2]
    assert between.tokens[0] < between.tokens[1] < between.tokens[2]


def test_several_tables_with_gaps(table: OutcomeTable) -> None:
    """Several tables are trained on together; they may share prompts and lack cells."""
    samples = np.where(np.arange(1500).reshape(500, 3) % 7 == 0, 0, table.samples)
    gaps = replace(
        table,
        name="gaps",
        samples=samples,
        correct=np.where(samples > 0, table.correct, np.nan),
        tokens=np.where(samples > 0, table.tokens, np.nan),
    )
    head = train.fit_head(
        [table.take(np.arange(200)), gaps.take(np.arange(100, 400))], TrainingSettings(members=1)
    ).head
    found = head.predict(HARD, "gaps", ASKED)

    assert set(head.sets) == {"made", "gaps"}
    assert np.isfinite([*found.correct, *found.tokens, *found.p95]).all()


def test_refuses_tables_it_cannot_use(table: OutcomeTable) -> None:
    """No tables, two of one name, and too few prompts."""
    for tables, says in (
        ([], "no tables"),
        ([table, table], "two tables"),
        ([table.take([0, 1])], "too few"),
    ):
        with pytest.raises(OutcomeError, match=says):
            train.fit_head(tables, TrainingSettings())
