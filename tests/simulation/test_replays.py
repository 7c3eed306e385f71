"""The replays on the page of results."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("scipy")

from gateway.simulation import replays
from gateway.simulation.price_sweep import FixedBudget, PricePoint, PriceSweep
from gateway.simulation.replays import Known, replay_rows
from tests.router_model import made


def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With enough own prompts, the head tells the prompts that need a thought from those that do not."""
    made.write(made.table(260, samples=4), tmp_path / "new.jsonl.gz")
    made.write(made.table(60, seed=3), tmp_path / "other.jsonl.gz")
    monkeypatch.setattr(replays, "KNOWN", (Known("new", "new", {"short": 10, "long": 110}),))
    monkeypatch.setattr(replays, "OTHERS", ("other",))
    monkeypatch.setattr(replays, "OWN", (0, 200, 800))

    prior, own = replay_rows(tmp_path, range(2), lambda _: None)

    assert (prior["own"], own["own"]) == (0, 200)  # 800 are more than there are
    assert (prior["prompts"], own["prompts"]) == (260, 60)
    assert prior["loss"] <= 0.02
    assert own["gain"] > max(prior["gain"], 0.1)


def test_no_tables(tmp_path: Path) -> None:
    """Without the tables there is nothing to replay."""
    assert list(replay_rows(tmp_path, range(1), lambda _: None)) == []


def test_gain_over_the_mix() -> None:
    """A policy at the best corner between two fixed tiers gains the triangle above their mix."""
    fixed = (FixedBudget("a", 100.0, 0.4, 100.0), FixedBudget("b", 200.0, 0.8, 200.0))
    points = (PricePoint(0.0, 200.0, 0.8), PricePoint(0.02, 150.0, 0.8), PricePoint(9.0, 100.0, 0.4))

    assert replays._gain(PriceSweep("t", 9, points, fixed)) == pytest.approx(0.1, abs=0.01)
    assert replays._gain(PriceSweep("t", 9, points[::2], fixed)) == pytest.approx(0.0)
