"""What is said about the gain of a head: it depends on what its estimates know about the prompts."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gateway.cli.measured_gain import gain_sentences
from router_model.arrays import Floats
from router_model.training.outcomes import OutcomeTable

COUNT = 60
TOKENS = np.broadcast_to(np.array([20.0, 200.0]), (COUNT, 2))
RIGHT = np.stack([np.arange(COUNT) % 2 == 0, np.ones(COUNT)], axis=1).astype(float)
"""Every other prompt needs the long rung."""
ALIKE = np.broadcast_to(np.array([0.5, 1.0]), (COUNT, 2))


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.cli.measured_gain._DRAWS", 60)


def said(estimates: Floats, known: int = COUNT) -> list[str]:
    """known: the first so many prompts have all outcomes."""
    names = tuple(str(n) for n in range(COUNT))
    samples = np.ones((COUNT, 2), int)
    samples[known:, 1] = 0
    table = OutcomeTable(
        name="tiny",
        tiers=("direct", "long"),
        ids=names,
        datasets=("d",) * COUNT,
        prompts=names,
        correct=np.where(samples > 0, RIGHT, np.nan),
        tokens=np.where(samples > 0, TOKENS, np.nan),
        samples=samples,
        digest="",
        lengths={"direct": 0.0, "long": 256.0},
    )
    return list(gain_sentences(estimates, TOKENS, table))


def test_estimates_that_know_the_prompts_gain() -> None:
    """Half of the extra tokens buy all right answers, and fixed rungs get 75 % with as many."""
    figures, verdict = said(np.clip(RIGHT, 0.1, 0.9))

    half = re.search(r"([+−][\d.]+) \([^)]*\) at half", figures)
    assert half
    assert 20 < float(half[1]) <= 25
    assert "on 60 prompts left out" in figures
    assert verdict.startswith("A router gains here: +")


def test_estimates_that_know_nothing_gain_nothing() -> None:
    """All prompts are alike to them, so that every price gives all of them one rung."""
    figures, verdict = said(ALIKE)

    assert "gain +0.0 (" in figures
    assert verdict.startswith("No gain of a router can be told from chance here: ")


def test_estimates_that_are_the_wrong_way_round_lose() -> None:
    """The long rung goes to the prompts that do not need it."""
    _, verdict = said(np.clip(RIGHT[::-1], 0.1, 0.9))

    assert verdict.startswith("A router loses here: −")


def test_prompts_without_all_outcomes_do_not_count() -> None:
    assert "on 20 prompts left out" in said(np.clip(RIGHT, 0.1, 0.9), known=20)[0]
    assert said(np.clip(RIGHT, 0.1, 0.9), known=19) == []
