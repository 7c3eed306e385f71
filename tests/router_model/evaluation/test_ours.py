"""Our own methods: the head, its joint objective and the IBPO policies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")

from router_model.evaluation.ibpo import fine_tuned, priced, published
from router_model.evaluation.ours import FittedHead, FittedPolicy, HeadMethod
from router_model.training.outcomes import OutcomeTable
from router_model.training.train import Trained
from tests.router_model.synthetic import TIERS, gain_over_mix, synthetic


def test_policies_and_joint_objective(trained: Trained) -> None:
    """The priced policy and the fine-tuned head beat the mix; the published form gives one tier per row."""
    fresh = synthetic(600, 10, learnable=True)
    joint = fine_tuned(trained, 0)
    tuned = FittedHead(replace(trained.head, sets={"made": joint}), joint).estimate(fresh)
    policy = FittedPolicy(trained.head, priced(trained, 0))
    prices = [*np.geomspace(10, 1e-3, 60)]
    spent = [policy.choose(fresh, price) for price in prices]
    tokens = [float((chosen * fresh.tokens).sum(axis=1).mean()) for chosen in spent]
    right = [float((chosen * fresh.correct).sum(axis=1).mean()) for chosen in spent]

    assert gain_over_mix(*tuned, fresh) > 0.08
    fixed = np.interp(tokens, fresh.tokens.mean(axis=0), fresh.correct.mean(axis=0))
    assert max(np.array(right) - fixed) > 0.06
    hard = FittedPolicy(trained.head, published(trained, 0)).choose(fresh, 0.5)
    assert hard.sum(axis=1).tolist() == [1.0] * len(fresh)


def test_method_seam(table: OutcomeTable) -> None:
    """The shipped method estimates tiers by name, also for a selection of tiers."""
    fitted = HeadMethod().fit(table.take(np.arange(200)), 0)
    some = table.take(np.arange(200, 260)).select(TIERS[::2])

    assert fitted.estimate(some).correct.shape == (60, 2)
    assert fitted.uncalibrated(some).tokens.shape == (60, 2)
