"""What is gained by chance: nothing is left of a method that knows nothing, and the rest of one that does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import cost_quality, metrics
from router_model.evaluation.chance import Chance, by_chance
from router_model.evaluation.cost_quality import Decisions
from router_model.evaluation.experiment import Cell
from router_model.evaluation.methods import Estimates
from router_model.training.outcomes import OutcomeTable
from tests.router_model import made


def decided(table: OutcomeTable, estimates: Estimates) -> tuple[Cell, float, Chance]:
    """A cell of these estimates, its AIQ gain, and the gains of its permuted decisions."""
    rows = np.arange(len(table))
    truth = Estimates(table.correct, table.tokens)
    decisions = cost_quality.decide(estimates, truth, rows)
    cell = Cell(decisions.scored(truth), estimates, decisions=decisions)
    tiers = cost_quality.fixed(*truth, rows)
    gain = metrics.gains(cell.sweep.curve(), metrics.Ground.of(tiers.curve()))["aiq_gain"]
    found = by_chance(table, [cell], [tiers], 40, seed=0)
    assert found is not None
    return cell, gain, found


def test_nothing_is_left_of_a_method_that_knows_nothing() -> None:
    """Random estimates seem to gain on small tables. Less what chance gains, their mean is near zero."""
    random = np.random.default_rng(3)
    raw, net, p_values = [], [], []
    for seed in range(30):
        table = made.table(80, learnable=False, seed=seed)
        rise = np.column_stack([np.zeros(80), random.uniform(0.1, 0.5, 80)])
        guess = Estimates(0.5 + rise, np.tile([10.0, 110.0], (80, 1)))
        _, gain, found = decided(table, guess)
        raw.append(gain)
        net.append(gain - found.bias("aiq_gain")[0])
        p_values.append(found.p_value("aiq_gain", gain))

    assert np.mean(raw) > 0.01
    assert abs(np.mean(net)) < 0.005
    assert 0.3 < np.mean(p_values) < 0.7


def test_knowledge_is_not_taken_for_chance() -> None:
    """A method that knows the outcomes keeps nearly all of its gain, and its p-value is the smallest."""
    table = made.table(200)

    _, gain, found = decided(table, Estimates(table.correct, table.tokens))

    assert gain - found.bias("aiq_gain")[0] > 0.1
    assert found.p_value("aiq_gain", gain) == pytest.approx(1 / 41)


def test_losses_by_chance_are_no_credit() -> None:
    """Permuted decisions that lose take nothing from the gain and add nothing to it."""
    found = Chance({"aiq_gain": np.array([-0.2, -0.1])}, {"aiq_gain": np.array([0.1, 0.3])})

    assert found.bias("aiq_gain") == (0.0, pytest.approx(0.2))


def test_unknown_decisions() -> None:
    """Without decisions there is nothing to permute."""
    table = made.table(20)
    rows = np.arange(20)
    tiers = cost_quality.fixed(table.correct, table.tokens, rows)

    assert by_chance(table, [Cell(tiers)], [tiers], 5, seed=0) is None


@given(st.integers(2, 30), st.integers(0, 1000))
def test_permuting_keeps_how_often_tiers_are_chosen(prompts: int, seed: int) -> None:
    """At every price each tier is chosen as often as before; all seeds move the same prompts alike."""
    random = np.random.default_rng(seed)
    rows = random.permutation(prompts)
    picks = random.integers(0, 3, (4, prompts))
    keys = random.random(prompts)
    sorted_picks = np.empty_like(picks)
    sorted_picks[:, rows] = picks

    moved = Decisions(rows, picks).permuted(keys)
    same = Decisions(np.arange(prompts), sorted_picks).permuted(keys)

    np.testing.assert_array_equal(np.sort(moved.chosen), np.sort(picks))
    np.testing.assert_array_equal(moved.chosen, same.chosen[:, rows])


@given(st.integers(1, 20), st.integers(0, 1000))
def test_shares_score_like_picks(prompts: int, seed: int) -> None:
    """Certain probabilities earn and cost what the same picks do."""
    random = np.random.default_rng(seed)
    picks = random.integers(0, 3, (2, prompts))
    outcomes = random.random((prompts, 3)), random.random((prompts, 3))
    rows = np.arange(prompts)

    by_picks = Decisions(rows, picks).scored(outcomes)
    by_shares = Decisions(rows, np.eye(3)[picks]).scored(outcomes)

    np.testing.assert_allclose(by_shares.correct, by_picks.correct)
    np.testing.assert_allclose(by_shares.tokens, by_picks.tokens)
