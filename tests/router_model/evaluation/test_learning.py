"""Learning curves: evidence is drawn without looking at what is measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import learning
from tests.router_model import made
from tests.router_model.synthetic import synthetic

pytest.importorskip("sklearn")


@given(st.integers(1, 6), st.integers(0, 100))
def test_thinned(samples: int, seed: int) -> None:
    """Cells keep at most as many samples as asked for, and no right answer is invented or forgotten."""
    table = made.table(30, samples=4, seed=seed)

    found = learning.thinned(table, samples, np.random.default_rng(seed))

    kept = min(samples, 4)
    assert (found.samples == kept).all()
    right = found.correct * kept
    np.testing.assert_allclose(right, np.rint(right))
    assert (right <= table.correct * 4 + 1e-9).all()
    assert (kept - right <= 4 - table.correct * 4 + 1e-9).all()


def test_steps() -> None:
    """No step calibrates on more than three quarters of a table or asks for samples that it lacks."""
    found = learning.curve_points(made.table(150, samples=2))

    assert found == [learning.Sample(size, count) for count in (1, 2) for size in (25, 50, 100)]


def test_measured_on_the_rest(trained) -> None:
    """Each seed measures on exactly the prompts that it did not calibrate on."""
    table = synthetic(120, 7, learnable=True, name="new")
    ticks: list[str] = []

    found = learning.calibrated(trained.head, table, learning.Sample(50, 2), [0, 1], ticks.append)

    (cells,) = found.cells.values()
    assert [len(cell.sweep.rows) for cell in cells] == [70, 70]
    assert set(cells[0].sweep.rows) != set(cells[1].sweep.rows)
    assert len(ticks) == 2
