"""Small tables teach no more than they can, and a prior gives way to outcomes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_model.encoders.ngrams import DENSE
from router_model.training import tier_curves
from router_model.training.choice import Fit, best_fit, decided, is_flat, simple_fits, simplest
from router_model.training.home import Home, check_home, strengths, towards
from router_model.training.outcomes import FOLDS, OutcomeError, OutcomeTable, check_enough, folds
from tests.router_model import made

LATENTS, COUNTS = slice(0, 2), slice(2, 2 + DENSE)


def inputs_of(table: OutcomeTable, *, telling: bool) -> np.ndarray:
    """Two latents, of which the first tells hard from easy prompts or not, and random counts."""
    random = np.random.default_rng(0)
    seen = random.normal(size=(len(table), 2 + DENSE))
    if telling:
        seen[:, 0] = [1.0 if "prove" in prompt else -1.0 for prompt in table.prompts]
    return seen


def chosen(table: OutcomeTable, *, telling: bool) -> Fit:
    """What is chosen among the simple fits and a regression on the latents."""
    seen, fold = inputs_of(table, telling=telling), folds(table, FOLDS, 0)
    narrow = tier_curves.regress(seen[:, LATENTS], table)
    weights = np.zeros((seen.shape[1] + 1, narrow.shape[1]))
    weights[LATENTS], weights[-1] = narrow[:-1], narrow[-1]
    full = Fit("head", tier_curves.cross_regress(seen[:, LATENTS], table, fold), weights)
    return best_fit(full, seen, LATENTS, COUNTS, table, fold)


@pytest.mark.parametrize("seed", [1, 2, 4])  # by chance, noise earns a standard error on 5 of the first 16
def test_constants_where_nothing_can_be_learnt(seed: int) -> None:
    """Without signal all prompts get the same estimates of P(right) and of tokens."""
    fit = chosen(made.table(200, learnable=False, seed=seed), telling=False)

    assert fit.name == "constants"
    assert not fit.weights[:-1].any()


def test_latents_where_they_tell() -> None:
    """Where latents tell hard from easy prompts they are used; large tables are not compared at all."""
    assert chosen(made.table(200), telling=True).name in {"ridge", "head"}
    assert chosen(made.table(600, learnable=False), telling=False).name == "head"


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_flat_tables_get_constants(right: float) -> None:
    """If no tier is ever better than another, estimates are constants however many prompts there are."""
    table = made.table(600)
    flat = replace(table, correct=np.full_like(table.correct, right))

    assert is_flat(flat)
    assert not is_flat(table)
    assert chosen(flat, telling=True).name == "constants"


def test_simple_fits_use_what_they_say() -> None:
    """Constants use no input, length one, and the ridge the latents and counts."""
    table = made.table(100)
    constants, length, ridge = simple_fits(
        inputs_of(table, telling=True), LATENTS, COUNTS, table, folds(table, FOLDS, 0)
    )

    used = [set(np.flatnonzero(fit.weights[:-1].any(axis=1))) for fit in (constants, length, ridge)]
    assert used == [set(), {COUNTS.start}, set(range(2 + DENSE))]
    assert np.ptp(constants.raw[folds(table, FOLDS, 0) == 1], axis=0).max() < 1e-9


def test_simplest_of_equals() -> None:
    """Of fits that decide alike the first one is chosen; one that decides better is preferred."""
    table = made.table(300)
    hard = np.array(["prove" in prompt for prompt in table.prompts])
    same = np.tile([0.0, 2.0, np.log(12), np.log(112)], (300, 1))
    knowing = same.copy()
    knowing[:, 0] = np.where(hard, -3.0, 3.0)
    knowing[:, 1] = 3.0
    nothing = np.zeros((1, 4))

    assert simplest([Fit("a", same, nothing), Fit("b", same, nothing)], table).name == "a"
    assert simplest([Fit("a", same, nothing), Fit("b", knowing, nothing)], table).name == "b"
    assert decided(knowing, table).mean() > decided(same, table).mean() + 0.05


def test_too_little() -> None:
    """Too few prompts, a single tier, and a tier with too few outcomes are refused with the reason."""
    table = made.table(40)
    samples = table.samples.copy()
    samples[10:, 1] = 0
    for refused, says in (
        (table.take(np.arange(19)), "19 prompts are too few to train on"),
        (table.select(["short"]), "short is its only tier"),
        (replace(table, samples=samples), "10 outcomes of the tier long are too few"),
    ):
        with pytest.raises(OutcomeError, match=says):
            check_enough(refused, "train")
    check_enough(table.take(np.arange(20)), "train")


def curves_of(table: OutcomeTable) -> tuple[tier_curves.Curves, np.ndarray]:
    """Curves that are constants, and their raw cross-fitted predictions."""
    none, fold = np.zeros((len(table), 0)), folds(table, FOLDS, 0)
    weights = np.vstack([np.zeros((1, 4)), tier_curves.regress(none, table)])
    return tier_curves.uncorrected(table, weights), tier_curves.cross_regress(none, table, fold)


HOME = Home(np.array([0.0, 0.5]), np.log([50.0, 200.0]))


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 5000), st.floats(0, 2000), st.floats(0, 2000))
def test_prior_gives_way(prompts: int, right: float, tokens: float) -> None:
    """Estimates lie between the outcomes' and the prior's, at the outcomes' without strength."""
    own, _ = curves_of(made.table(100))
    mixed = towards(own, HOME, prompts, (right, tokens))

    target = np.concatenate(HOME)
    low, high = np.minimum(own.bias, target), np.maximum(own.bias, target)
    assert ((mixed.bias >= low - 1e-4) & (mixed.bias <= high + 1e-4)).all()
    assert towards(own, HOME, prompts, (0.0, 0.0)).bias == pytest.approx(own.bias)
    strong = np.abs(towards(own, HOME, 1, (1e9, 1e9)).bias - target)
    assert strong.max() < 1e-4


def test_strength_follows_the_evidence() -> None:
    """A prior that is right is trusted, and one that is wrong is not."""
    table = made.table(60)
    _, raw = curves_of(table)
    rate = table.correct.mean(axis=0)
    right = Home(np.log(rate / (1 - rate)), np.log(table.tokens).mean(axis=0))
    wrong = Home(-3 * np.ones(2), np.log([5000.0, 9000.0]))

    assert min(strengths(raw, table, right)) >= 80
    assert strengths(raw, table, wrong) == (0.0, 0.0)


def test_unusable_priors() -> None:
    """A prior for other tiers, and one that is not finite."""
    table = made.table(40)
    for home in (Home(np.zeros(3), np.zeros(3)), Home(np.zeros(2), np.array([np.nan, 1.0]))):
        with pytest.raises(OutcomeError, match="finite value for each of 2 tiers"):
            check_home(home, table)
