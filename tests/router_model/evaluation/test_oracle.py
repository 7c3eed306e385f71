"""No estimates beat the oracle where outcomes are certain, and an informed oracle knows luck from skill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import cost_quality
from router_model.evaluation.methods import Estimates
from router_model.evaluation.oracle import oracle
from router_model.training.outcomes import OutcomeTable
from tests.router_model import made


def certain(seed: int, samples: int) -> OutcomeTable:
    """A table in which all samples of a cell agree."""
    random = np.random.default_rng(seed)
    plain = made.table(24, samples=samples, seed=seed)
    tokens = np.cumsum(random.integers(1, 90, (24, 2)), axis=1).astype(float)
    return replace(plain, correct=(random.random((24, 2)) < [0.4, 0.8]).astype(float), tokens=tokens)


@given(st.integers(0, 300), st.sampled_from([1, 4]))
def test_no_estimates_beat_the_oracle(seed: int, samples: int) -> None:
    """On a table without noise the oracle's hull is nowhere below the curve of any estimates."""
    table = certain(seed, samples)
    random = np.random.default_rng(seed + 1)
    rows = np.arange(24)
    guess = random.random(table.correct.shape), table.tokens * random.uniform(0.5, 2, table.tokens.shape)
    curve = cost_quality.sweep(guess, (table.correct, table.tokens), rows).curve()

    best = oracle(table)[0].curve()

    for budget in np.linspace(curve.tokens.min(), curve.tokens.max(), 7):
        reached = cost_quality.at_budget(curve, budget)
        assert reached.accuracy <= cost_quality.mix_at(best, reached.tokens) + 1e-9


@given(st.integers(0, 300))
def test_an_oracle_informed_by_the_truth_is_the_oracle(seed: int) -> None:
    """If a method knows a table without noise, the oracle that hears it is nowhere below it."""
    table = certain(seed, samples=4)
    truth = Estimates(table.correct, table.tokens)
    own = cost_quality.sweep(truth, truth, np.arange(24)).curve()

    best, kind = oracle(table, prior=truth)

    assert kind == "informed"
    for budget in own.tokens:
        reached = cost_quality.at_budget(own, budget)
        assert reached.accuracy <= cost_quality.mix_at(best.curve(), reached.tokens) + 1e-9


def test_a_prior_helps_where_samples_mislead() -> None:
    """With two samples of a coin, the other one says little; a prior that knows the coins does."""
    random = np.random.default_rng(0)
    plain = made.table(600, samples=2)
    chance = np.where(np.arange(600)[:, None] % 2 == 1, [0.2, 0.8], [0.5, 0.5])
    table = replace(plain, correct=random.binomial(2, chance) / 2)
    tiers = cost_quality.fixed(table.correct, table.tokens, np.arange(600)).curve()
    budget = cost_quality.budget_of(tiers, 0.5)

    alone, informed = (
        cost_quality.at_budget(oracle(table, prior=prior)[0].curve(), budget).accuracy
        for prior in (None, Estimates(chance, table.tokens))
    )

    assert informed > alone + 0.02
    assert informed == pytest.approx(0.65, abs=0.04)  # half the prompts at 0.8, half at 0.5
