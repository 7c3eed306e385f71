"""A cap between two measured ones is computed, not measured: it equals what a cut there would have given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation.caps import uniform_caps
from router_model.training.outcomes import OutcomeTable
from tests.router_model import made

CAPS = (64, 128, 512)


def truncated(lengths: np.ndarray, right: np.ndarray, caps: tuple[int, ...]) -> OutcomeTable:
    """Runs of these lengths, cut at the caps: cut runs are wrong."""
    return replace(
        made.table(len(lengths)),
        tiers=tuple(f"cap{cap}" for cap in caps),
        correct=np.stack([right * (lengths < cap) for cap in caps], axis=1).astype(float),
        tokens=np.stack([np.minimum(lengths, cap) for cap in caps], axis=1).astype(float),
        samples=np.ones((len(lengths), len(caps)), int),
    )


@given(
    st.lists(st.tuples(st.integers(1, 900), st.booleans()), min_size=2, max_size=30),
    st.integers(0, 4),
)
def test_computed_caps_are_exact(runs: list[tuple[int, bool]], between: int) -> None:
    """Every computed cap has the outcomes of a real cut at that cap."""
    lengths, right = np.array(runs).T
    spots = [
        int(cap)
        for low, high in ((64, 128), (128, 512))
        for cap in np.geomspace(low, high, between + 2)[:-1].round()
    ]
    real = truncated(lengths, right, (*spots, 512))

    found = uniform_caps(truncated(lengths, right, CAPS), CAPS, between)

    np.testing.assert_array_equal(found.correct, real.correct)
    np.testing.assert_array_equal(found.tokens, real.tokens)


def test_a_cut_run_stays_as_right_as_at_the_shorter_cap() -> None:
    """A grader may accept an unfinished answer. It then counts for the caps up to the next measured one."""
    table = truncated(np.array([400, 400]), np.array([1, 1]), CAPS)
    table.correct[0, 0] = 1.0

    found = uniform_caps(table, CAPS, 1)

    assert found.correct.T.tolist() == [[1, 0], [1, 0], [0, 0], [0, 0], [1, 1]]
