"""The second stage improves decisions, is refused where it does not, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from router_model.arrays import Floats
from router_model.head import Head
from router_model.training import ibpo, tier_curves, train
from router_model.training.calibrate import calibrate
from router_model.training.ibpo import FirstStage, gains_over, improve
from router_model.training.objectives import OBJECTIVES, Objective, Worths, apart, policy_gradient
from router_model.training.outcomes import FOLDS, OutcomeTable
from tests.router_model.synthetic import synthetic

DECIDING = ("policy gradient", "policy gradient, coupled batch", "SPO+")
"""The tilt is not among them: at its weight it hardly moves the curves."""


def bent(count: int, seed: int) -> tuple[OutcomeTable, Floats]:
    """Outcomes that linear curves cannot fit: a long thought helps only beyond a point of the one latent."""
    draw = np.random.default_rng(seed)
    latent = draw.uniform(-2, 2, (count, 1))
    right = np.stack([np.full(count, 0.5), np.where(latent[:, 0] > 1, 0.95, 0.52)], axis=1)
    spent = np.stack([np.full(count, 10.0), 100 + 40 * latent[:, 0]], axis=1)
    table = synthetic(count, seed, learnable=True).select(("direct", "long"))
    samples = np.full((count, 2), 8)
    return replace(table, correct=draw.binomial(8, right) / 8, tokens=spent, samples=samples), latent


def first_stage(table: OutcomeTable, latents: Floats) -> FirstStage:
    """Linear curves on the latents, uncorrected."""
    fold = np.arange(len(table)) % FOLDS
    weights = tier_curves.regress(latents, table)
    return FirstStage(
        table=table,
        latents=latents,
        rows=slice(0, latents.shape[1]),
        fold=fold,
        whole=latents @ weights[:-1] + weights[-1],
        without=ibpo.linear_without(latents, table, fold),
        curves=tier_curves.uncorrected(table, weights),
        smoothing=np.eye(2 * len(table.tiers)),
    )


@pytest.fixture(scope="module")
def stage() -> FirstStage:
    """A first stage whose decisions can be improved."""
    return first_stage(*bent(300, 0))


def decided(first: FirstStage, objective: str) -> float:
    """What the second stage gains on fresh outcomes."""
    curves, _ = improve(first, 0, objective)
    table, latents = bent(1000, 1)
    inputs = latents.astype(np.float32)
    return float(gains_over(first.curves.outcomes(inputs), curves.outcomes(inputs), table).mean())


@pytest.fixture(scope="module")
def control(stage: FirstStage) -> float:
    """What as many steps on outcomes alone gain."""
    return decided(stage, "outcomes alone")


@pytest.mark.parametrize("objective", DECIDING)
def test_decisions_improve_where_regret_is_possible(
    stage: FirstStage, control: float, objective: str
) -> None:
    """On fresh prompts decisions are better than before, and better than with the control."""
    gain = decided(stage, objective)

    assert gain > max(0.002, control)


def test_a_worse_second_stage_is_refused(stage: FirstStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An objective that makes decisions worse leaves the curves as they were, and the entry says so."""

    def backwards(at: Worths) -> Floats:
        return -30 * policy_gradient(at)

    monkeypatch.setitem(OBJECTIVES, "backwards", Objective(backwards, apart))
    curves, entry = improve(stage, 0, "backwards")

    assert curves is stage.curves
    assert entry["objective"] == "backwards"
    assert not entry["kept"]
    assert entry["gain"] < -max(ibpo.MARGIN, entry["gain_error"])


def test_nothing_is_kept_that_was_not_checked(stage: FirstStage) -> None:
    """Without twenty prompts that were measured at all tiers there is no second stage."""
    samples = stage.table.samples.copy()
    samples[19:, 0] = 0
    gaps = replace(
        stage.table,
        samples=samples,
        correct=np.where(samples > 0, stage.table.correct, np.nan),
        tokens=np.where(samples > 0, stage.table.tokens, np.nan),
    )
    curves, entry = improve(replace(stage, table=gaps), 0)

    assert curves is stage.curves
    assert not entry["kept"]


def test_same_seed_same_bytes(stage: FirstStage) -> None:
    """Two runs give the same curves; another seed draws other prices."""
    (one, _), (two, _), (other, _) = (improve(stage, seed) for seed in (3, 3, 4))

    assert one.weights.tobytes() == two.weights.tobytes()
    assert one.bias.tobytes() == two.bias.tobytes()
    assert one.weights.tobytes() != other.weights.tobytes()


def test_tokens_stay_expectations() -> None:
    """Logarithms underestimate tokens that vary. After the second stage their mean is right."""
    table, latents = bent(400, 0)
    varied = table.tokens * np.random.default_rng(0).lognormal(0, 0.5, table.tokens.shape)
    first = first_stage(replace(table, tokens=varied), latents)
    curves, entry = improve(first, 0)
    inputs = latents.astype(np.float32)
    before, after = (some.outcomes(inputs)[1].mean(axis=0) for some in (first.curves, curves))

    assert entry["kept"]
    assert (before < 0.92 * varied.mean(axis=0)).all()
    np.testing.assert_allclose(after, varied.mean(axis=0), rtol=0.05)


def test_gains_of_the_same_decisions_are_zero(stage: FirstStage) -> None:
    """Estimates that only differ in scale decide alike at their own prices."""
    correct, tokens = stage.served(stage.crossed)

    assert np.abs(gains_over((correct, tokens), (correct, 2 * tokens), stage.table)).max() == 0


def _said(head: Head) -> Mapping[str, Any]:
    return {name: entry["second_stage"] for name, entry in head.manifest["metrics"].items()}


def test_training_says_what_the_second_stage_did(table: OutcomeTable, tmp_path: Path) -> None:
    """Every table has its entry, also after saving and calibrating. Only its own latents are read anew."""
    both = table, replace(synthetic(500, 9, learnable=True), name="other")
    made = train.fit_head(both, train.TrainingSettings(latents=5, members=1))
    improved = ibpo.improve_head(made.head, made.stages, 0)
    loaded = Head.load(train.save(improved, tmp_path / "head") and tmp_path / "head")
    tuned = calibrate(loaded, replace(synthetic(150, 8, learnable=True), name="new"))

    assert set(_said(tuned)) == {"made", "other", "new"}
    assert {name: entry["objective"] for name, entry in _said(tuned).items()} == {
        "made": ibpo.DEFAULT,
        "other": ibpo.DEFAULT,
        "new": None,  # too small for more than a simple fit
    }
    for name, entry in _said(improved).items():
        rows = made.stages[name].rows
        changed = (improved.sets[name].weights != made.head.sets[name].weights).any(axis=1)
        assert entry["kept"] == changed.any()
        assert not np.delete(changed, np.arange(rows.start, rows.stop)).any()
