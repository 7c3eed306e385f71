"""The methods that the head must beat learn what can be learnt and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router_model.evaluation.baselines import Boosting, DatasetIdentity, Neighbours, QuantileRule, Regression
from router_model.evaluation.catalogue import baselines
from router_model.evaluation.factorisation import Factorisation
from router_model.evaluation.methods import Method
from tests.router_model import made

pytest.importorskip("sklearn")

EVERY = [pytest.param(method, id=method.name) for method in baselines()]
READERS = [Neighbours(k=10), Regression(), Factorisation(directions=8), Boosting(directions=8)]
"""Small versions of the methods that see the words."""


@pytest.mark.parametrize("method", EVERY)
def test_estimates_are_possible(method: Method) -> None:
    """P(right) lies in [0, 1] and tokens are positive and finite, also for unfamiliar prompts."""
    train = made.table()
    strange = replace(
        train.take([0, 1, 2, 3]), prompts=("", "😀" * 2_000, "∫" * 50, "\ud800 x"), datasets=("c",) * 4
    )

    found = method.fit(train, 0).estimate(strange)

    assert found.correct.shape == found.tokens.shape == (4, 2)
    assert ((found.correct >= 0) & (found.correct <= 1)).all()
    assert np.isfinite(found.tokens).all()
    assert (found.tokens > 0).all()


@pytest.mark.parametrize("method", EVERY)
def test_same_seed_same_estimates(method: Method) -> None:
    """Two fits with one seed agree to the last bit."""
    train, test = made.table(80), made.table(20, seed=1)

    first, second = (method.fit(train, 3).estimate(test) for _ in range(2))

    np.testing.assert_array_equal(first.correct, second.correct)
    np.testing.assert_array_equal(first.tokens, second.tokens)


@pytest.mark.parametrize("method", READERS, ids=lambda method: method.name)
def test_words_tell_hard_from_easy(method: Method) -> None:
    """On new prompts, the estimated gain of longer thinking is larger for hard ones."""
    test = made.table(40, seed=1)
    found = method.fit(made.table(160), 0).estimate(test)
    gain = found.correct[:, 1] - found.correct[:, 0]

    assert gain[1::2].mean() > 0.6
    assert gain[::2].mean() < 0.3


@pytest.mark.parametrize("method", READERS, ids=lambda method: method.name)
def test_mean_tokens_are_kept(method: Method) -> None:
    """Estimated tokens add up to those of the training prompts: the mean is estimated, not the median."""
    random = np.random.default_rng(0)
    plain = made.table(200)
    skewed = replace(plain, tokens=np.exp(random.normal(4, 1, plain.tokens.shape)))

    found = method.fit(skewed, 0).estimate(skewed)

    np.testing.assert_allclose(found.tokens.mean(axis=0), skewed.tokens.mean(axis=0), rtol=0.25)


def test_a_tier_that_is_never_wrong() -> None:
    """A tier with one kind of outcome is estimated as always or never right, not refused."""
    train = made.table()
    perfect = replace(train, correct=np.column_stack([train.correct[:, 0], np.ones(len(train))]))

    assert Regression().fit(perfect, 0).estimate(perfect).correct[:, 1].min() == 1


def test_rule_by_length() -> None:
    """A rule learns means by deciles of its score: long prompts were hard, so they are expected to be."""
    train = made.table()

    found = QuantileRule("length", len).fit(train, 0).estimate(train)

    assert found.correct[1::2, 0].mean() < 0.4 < found.correct[::2, 0].mean()


def test_dataset_identity_knows_nothing_else() -> None:
    """All prompts of a data set get the same estimate; an unknown data set gets the overall one."""
    train = made.table()
    estimator = DatasetIdentity().fit(train, 0)
    stranger = replace(train.take([0]), datasets=("never seen",))

    assert len({tuple(row) for row in estimator.estimate(train).correct}) == 2
    np.testing.assert_allclose(estimator.estimate(stranger).correct[0], train.correct.mean(axis=0))


def test_samples_are_weights() -> None:
    """A prompt sampled nine times counts like nine prompts."""
    train = made.table(40)
    heavy = replace(train, samples=np.where(np.arange(40)[:, None] % 2, 9, 1) * np.ones((1, 2), int))

    light_rate = Regression(strength=0.01).fit(train, 0).estimate(train).correct[:, 0].mean()
    heavy_rate = Regression(strength=0.01).fit(heavy, 0).estimate(train).correct[:, 0].mean()

    assert heavy_rate < light_rate - 0.1
