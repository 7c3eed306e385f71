"""Our own methods: the head after one or both stages, and the IBPO policies."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from router_model.evaluation.ibpo import Mixed, Ranked, mixed, priced, published, ranked
from router_model.evaluation.ours import FittedHead, FittedPolicy, HeadMethod
from router_model.training.ibpo import improve_head
from router_model.training.outcomes import OutcomeTable
from router_model.training.train import Trained
from tests.router_model.synthetic import TIERS, gain_over_mix, synthetic


@pytest.fixture(scope="module")
def fresh() -> OutcomeTable:
    """Prompts that nothing was trained on."""
    return synthetic(600, 10, learnable=True)


def reached(policy: FittedPolicy, table: OutcomeTable) -> tuple[list[float], list[float]]:
    """Mean tokens and accuracy at falling prices, from infinity to 0."""
    spent = [policy.choose(table, price) for price in (np.inf, *np.geomspace(50, 1e-3, 60), 0.0)]
    tokens = [float((chosen * table.tokens).sum(axis=1).mean()) for chosen in spent]
    return tokens, [float((chosen * table.correct).sum(axis=1).mean()) for chosen in spent]


def test_policies_and_second_stage(trained: Trained, fresh: OutcomeTable) -> None:
    """The priced policy and the head beat the mix, and the published form gives one tier per row."""
    head = improve_head(trained.head, trained.stages, 0)
    tuned = FittedHead(head, trained.plain["made"]).estimate(fresh)
    tokens, right = reached(FittedPolicy(trained.head, priced(trained, 0)), fresh)

    assert gain_over_mix(*tuned, fresh) > 0.08
    fixed = np.interp(tokens, fresh.tokens.mean(axis=0), fresh.correct.mean(axis=0))
    assert max(np.array(right) - fixed) > 0.06
    hard = FittedPolicy(trained.head, published(trained, 0)).choose(fresh, 0.5)
    assert hard.sum(axis=1).tolist() == [1.0] * len(fresh)


@pytest.mark.parametrize("learn", [mixed, ranked])
def test_published_labels_at_any_budget(trained: Trained, fresh: OutcomeTable, learn: object) -> None:
    """Both forms spend from the cheapest tier to the best one and are never far below the mix of the two."""
    policy: Mixed | Ranked = learn(trained, 0)  # type: ignore[operator]
    tokens, right = reached(FittedPolicy(trained.head, policy), fresh)
    means = fresh.tokens.mean(axis=0)

    assert tokens[0] == pytest.approx(means.min())
    assert tokens[-1] == pytest.approx(means.max())
    assert tokens == sorted(tokens)
    fixed = np.interp(tokens, means[[0, -1]], fresh.correct.mean(axis=0)[[0, -1]])
    assert min(np.array(right) - fixed) > -0.03


def test_ranking_keeps_prompts_without_a_right_answer(trained: Trained) -> None:
    """They change what is learnt, because a long answer to them is a wasted one."""
    kept, dropped = published(trained, 0, every=True), published(trained, 0)

    assert (trained.views[0].table.correct.max(axis=1) == 0).any()
    assert not np.array_equal(kept.models[1][1], dropped.models[1][1])


def test_method_seam(table: OutcomeTable) -> None:
    """The shipped method estimates tiers by name, also for a selection of tiers."""
    fitted = HeadMethod().fit(table.take(np.arange(200)), 0)
    some = table.take(np.arange(200, 260)).select(TIERS[::2])

    assert fitted.estimate(some).correct.shape == (60, 2)
    assert fitted.uncalibrated(some).tokens.shape == (60, 2)
