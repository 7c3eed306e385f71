"""No method is scored on its training prompts, oracles are honest about luck, points keep budgets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import cost_quality, experiment, oracle, saved_head
from router_model.evaluation.methods import Estimates
from router_model.training.outcomes import OutcomeError, OutcomeTable
from tests.router_model import made


class Memory:
    """Memorises every training outcome and knows nothing of other prompts."""

    name = "memory"

    def fit(self, train: OutcomeTable, seed: int) -> Memory:
        """Memorise the table."""
        self.known = dict(zip(train.prompts, train.correct, strict=True))
        return self

    def estimate(self, table: OutcomeTable) -> Estimates:
        """The memorised outcomes, or 0.5."""
        rows = [self.known.get(prompt, np.array([0.5, 0.5])) for prompt in table.prompts]
        return Estimates(np.array(rows), np.tile([10.0, 110.0], (len(table), 1)))


class Knowing:
    """A policy that decides by a word in the prompt, up to a price."""

    name = "knowing"

    def fit(self, train: OutcomeTable, seed: int) -> Knowing:
        """Nothing to learn."""
        return self

    def choose(self, table: OutcomeTable, price: float) -> np.ndarray:
        """The long tier for proofs, below a price of 5."""
        long = np.array(["prove" in prompt for prompt in table.prompts]) & (price < 5)
        return np.column_stack([~long, long]).astype(float)


def test_memory_does_not_help() -> None:
    """Memorising the training outcomes is no better than knowing nothing."""
    table = made.table(200)
    cell = experiment.cross_fit(Memory(), table, 0, experiment.parts(table, 0), lambda _: None)

    (low, middle, high) = saved_head.budget_points([cell], table)

    assert sorted(cell.sweep.rows) == list(range(200))
    for point in (low, middle, high):
        assert point["accuracy"] <= point["mix"] + 1e-9


def test_policy_that_knows() -> None:
    """A policy that tells hard from easy reaches, at half the extra budget, what the long tier reaches."""
    table = made.table(200)
    cell = experiment.cross_fit(Knowing(), table, 0, experiment.parts(table, 0), lambda _: None)
    middle = saved_head.budget_points([cell], table)[1]

    assert middle["accuracy"] == pytest.approx(table.correct[:, 1].mean(), abs=0.03)
    assert middle["accuracy"] > middle["mix"] + 0.1


def test_points() -> None:
    """Tokens never exceed the budget, and accuracy never exceeds that of a clairvoyant oracle."""
    table = made.table(200)
    cell = experiment.cross_fit(Knowing(), table, 0, experiment.parts(table, 0), lambda _: None)
    low, high = table.tokens.mean(axis=0)

    found = saved_head.budget_points([cell], table)

    assert [point["extra_budget"] for point in found] == [0.25, 0.5, 0.75]
    for point in found:
        assert point.keys() == {"extra_budget", "tokens", "accuracy", "mix", "oracle"}
        assert point["tokens"] <= low + point["extra_budget"] * (high - low) + 1e-9
        assert point["accuracy"] <= point["oracle"] + 1e-9
        assert point["mix"] == pytest.approx(
            np.interp(point["extra_budget"], [0, 1], table.correct.mean(axis=0))
        )


def test_clairvoyant_oracle() -> None:
    """With one sample per cell, the oracle chooses and scores on it and is called clairvoyant."""
    best, kind = oracle.oracle(made.table(60))

    assert kind == "clairvoyant"
    assert best.correct.shape == best.tokens.shape


def test_split_sample_oracle_cannot_know_luck() -> None:
    """If every answer is a coin toss, choosing on other samples gains the oracle nothing."""
    random = np.random.default_rng(0)
    plain = made.table(400, samples=4)
    luck = replace(plain, correct=random.binomial(4, 0.5, plain.correct.shape) / 4)
    best, kind = oracle.oracle(luck)
    seen = cost_quality.sweep(
        (luck.correct, luck.tokens), (luck.correct, luck.tokens), np.arange(400)
    ).curve()

    assert kind == "split-sample"
    assert best.curve().correct.max() == pytest.approx(0.5, abs=0.06)
    assert seen.correct.max() > 0.6


def test_split_sample_oracle_knows_the_prompt() -> None:
    """Where the prompt decides, the oracle reaches the accuracy of the long tier at half the extra budget."""
    table = made.table(200, samples=4)
    best, _ = oracle.oracle(table)
    budget = cost_quality.budget_of(
        cost_quality.fixed(table.correct, table.tokens, np.arange(200)).curve(), 0.55
    )

    assert cost_quality.at_budget(best.curve(), budget).accuracy == pytest.approx(0.95, abs=0.03)


def test_left_out_data_set_is_not_trained_on() -> None:
    """Methods are never fitted to prompts of the data set that is measured."""
    table = made.table(80)
    memory = Memory()

    comparison = experiment.left_out(table, "b", [memory], [0], lambda _: None)

    tested = {table.prompts[row] for row in comparison.tiers[0].rows}
    assert tested == {p for p, d in zip(table.prompts, table.datasets, strict=True) if d == "b"}
    assert tested.isdisjoint(memory.known)


def test_left_out_groups_are_not_trained_on() -> None:
    """Every prompt is measured once, by a method that saw no prompt of its group."""
    table = made.table(80)
    groups = ["proof" if "prove" in prompt else "sum" for prompt in table.prompts]
    asked: list[set[str]] = []

    class Asking(Memory):
        """Remembers which groups it is asked about, and checks that it knows none of their prompts."""

        def estimate(self, table: OutcomeTable) -> Estimates:
            """The group of the prompts; see `Memory.estimate`."""
            asked.append({"proof" if "prove" in prompt else "sum" for prompt in table.prompts})
            assert not set(table.prompts) & set(self.known)
            assert all(("prove" in prompt) != (asked[-1] == {"proof"}) for prompt in self.known)
            return super().estimate(table)

    comparison = experiment.left_out_groups(table, groups, [Asking()], [0, 1], lambda _: None)

    assert sorted(map(sorted, asked)) == [["proof"], ["proof"], ["sum"], ["sum"]]
    for cell, tiers in zip(comparison.cells["memory"], comparison.tiers, strict=True):
        assert sorted(cell.sweep.rows) == sorted(tiers.rows) == list(range(80))


class Constants:
    """Knows the mean outcomes of the tiers and nothing of prompts."""

    name = "constants"

    def fit(self, train: OutcomeTable, seed: int) -> Constants:
        """Remember the means."""
        self.means = train.correct.mean(axis=0), train.tokens.mean(axis=0)
        return self

    def estimate(self, table: OutcomeTable) -> Estimates:
        """The means for every prompt."""
        return Estimates(*(np.tile(mean, (len(table), 1)) for mean in self.means))


def test_knowing_nothing_is_worth_the_mix() -> None:
    """Constants of other groups earn what the mix earns, however much the groups differ in their levels."""
    table = made.table(400)
    groups = ["proof" if "prove" in prompt else "sum" for prompt in table.prompts]
    chance = np.where([[group == "proof"] for group in groups], [0.1, 0.4], [0.5, 0.9])
    table = replace(table, correct=np.random.default_rng(0).binomial(1, chance).astype(float))

    comparison = experiment.left_out_groups(table, groups, [Constants()], [0], lambda _: None)
    (cell,), tiers = comparison.cells["constants"], comparison.tiers[0].curve()

    curve = cell.sweep.curve()
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        budget = cost_quality.budget_of(tiers, share)
        assert cost_quality.at_budget(curve, budget).accuracy == pytest.approx(
            cost_quality.mix_at(tiers, budget), abs=1e-6
        )


def test_groups_that_cannot_be_left_out() -> None:
    """One group, and groups for another number of prompts."""
    table = made.table(20)

    for groups, says in ((["a"] * 20, "two groups"), (["a", "b"], "2 groups for 20 prompts")):
        with pytest.raises(OutcomeError, match=says):
            experiment.left_out_groups(table, groups, [Memory()], [0], lambda _: None)


@given(st.lists(st.sampled_from("abcdefghi"), min_size=1, max_size=60), st.integers(1, 6), st.integers(0, 9))
def test_category_groups(categories: list[str], count: int, seed: int) -> None:
    """A category is never split, there are at most `count` groups, and no group is empty for nothing."""
    table = replace(made.table(len(categories)), categories=tuple(categories))

    groups = experiment.category_groups(table, count, seed)

    assert len(set(zip(categories, groups, strict=True))) == len(set(categories))
    assert len(set(groups)) == min(count, len(set(categories)))
    assert groups == experiment.category_groups(table, count, seed)


def test_no_categories() -> None:
    """A table that names no categories cannot be grouped by them."""
    with pytest.raises(OutcomeError, match="no row has a category"):
        experiment.category_groups(made.table(20))


def test_within_keeps_the_decisions() -> None:
    """Within a data set, the same decisions are measured against the tiers of that data set."""
    table = made.table(80)
    whole = experiment.compare(table, [Knowing()], [0], lambda _: None, every=True)

    part = experiment.within(whole, "a")

    (cell,) = part.cells["knowing"]
    assert {table.datasets[row] for row in cell.sweep.rows} == {"a"}
    assert sorted(cell.sweep.rows) == sorted(part.tiers[0].rows) == sorted(part.oracle[0].rows)


def test_held_out_part_differs_by_seed() -> None:
    """Without cross-validation each seed tests another fifth."""
    table = made.table(200)

    comparison = experiment.compare(table, [Knowing()], [0, 1], lambda _: None, every=False)

    first, second = (set(tiers.rows) for tiers in comparison.tiers)
    assert 20 <= len(first) <= 60
    assert first != second
