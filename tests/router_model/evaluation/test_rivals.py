"""Rivals join the fixed tiers: what their options add, and what the router has over both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router_model.evaluation import cost_quality, rivals
from router_model.evaluation.voting import Option
from tests.router_model import made

COUNT = 60


def tiers() -> cost_quality.Sweep:
    """Tiers with 2 in 3 right for 10 tokens, and all right for 50."""
    correct, tokens = np.tile([2 / 3, 1.0], (COUNT, 1)), np.tile([10.0, 50.0], (COUNT, 1))
    return cost_quality.fixed(correct, tokens, np.arange(COUNT))


def test_an_option_joins_the_mix() -> None:
    """An option that is always right for 30 tokens gains 1/6 at half the extra budget, less elsewhere."""
    option = Option("votes", np.ones(COUNT), np.full(COUNT, 30.0))

    found = rivals.contests({"votes": [option]}, [tiers()], [tiers()], draws=20, seed=0)["votes"]

    assert found["middle"]["rival"][0] == pytest.approx(1 / 6)
    assert found["lean"]["rival"][0] == pytest.approx(1 / 12)
    assert found["middle"]["router"][0] == pytest.approx(-1 / 6)  # this router is the mix itself


def test_a_useless_option_changes_nothing() -> None:
    """An option below the mix leaves the mix as it is."""
    option = Option("votes", np.full(COUNT, 0.5), np.full(COUNT, 40.0))

    found = rivals.contests({"votes": [option], "none": []}, [tiers()], [tiers()], draws=20, seed=0)

    assert found.keys() == {"votes"}
    assert all(one["rival"] == pytest.approx([0, 0, 0]) for one in found["votes"].values())


def test_a_router_is_compared_on_its_own_prompts() -> None:
    """Options are read at the prompts that a seed has tested."""
    late = np.arange(COUNT) >= COUNT // 2
    option = Option("votes", late.astype(float), np.full(COUNT, 30.0))
    half = tiers().within(late)

    found = rivals.contests({"votes": [option]}, [half], [half], draws=20, seed=0)["votes"]

    assert found["middle"]["rival"][0] == pytest.approx(1 / 6)


def test_two_drafts() -> None:
    """Of four direct answers two are right: 1/6 of the pairs are right, 2/3 disagree, 1/6 are wrong."""
    table = replace(
        made.table(10),
        correct=np.tile([0.5, 1.0], (10, 1)),
        tokens=np.tile([10.0, 110.0], (10, 1)),
        samples=np.tile([4, 1], (10, 1)),
    )

    never, always = rivals.two_drafts(table, "short", "long")

    np.testing.assert_allclose(never.correct, 1)
    np.testing.assert_allclose(never.tokens, 20 + 5 / 6 * 110)
    np.testing.assert_allclose(always.correct, 5 / 6)
    np.testing.assert_allclose(always.tokens, 20 + 4 / 6 * 110)


def test_one_draft_is_not_two() -> None:
    """A table with one direct answer per prompt cannot say anything about two."""
    with pytest.raises(ValueError, match="two drafts need two"):
        rivals.two_drafts(made.table(10), "short", "long")
