"""More fixed rungs and better informed oracles are other yardsticks for the same decisions."""

from __future__ import annotations

import numpy as np
import pytest

from router_model.evaluation import cost_quality, experiment, yardsticks
from router_model.evaluation.methods import Estimates
from tests.router_model import made
from tests.router_model.evaluation.test_experiment import Knowing, Memory


def test_more_fixed_rungs_than_the_methods_choose_from() -> None:
    """A free rung that is always right leaves nothing to gain; the decisions stay the same."""
    table = made.table(80)
    whole = experiment.compare(table, [Knowing()], [0], lambda _: None, every=True)
    free = Estimates(
        np.hstack([table.correct, np.ones((80, 1))]), np.hstack([table.tokens, np.full((80, 1), 10.0)])
    )

    found = yardsticks.against(whole, free)

    assert found.cells is whole.cells
    assert cost_quality.mix_at(found.tiers[0].curve(), 15) == pytest.approx(1)


def test_informed_oracles() -> None:
    """Split-sample oracles hear a method that estimates; clairvoyant ones and other methods stay."""
    several, single = made.table(60, samples=4), made.table(60)

    def kinds(method: Memory | Knowing) -> list[str]:
        return [
            yardsticks.informed(
                experiment.compare(table, [method], [0], lambda _: None, every=True), method.name
            ).oracle_kind
            for table in (several, single)
        ]

    assert kinds(Memory()) == ["informed", "clairvoyant"]
    assert kinds(Knowing()) == ["split-sample", "clairvoyant"]
