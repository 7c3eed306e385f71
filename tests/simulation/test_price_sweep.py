"""The replay that says whether a head does harm in front of a model that it never saw."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from examples.servers import TIERS
from gateway.simulation.price_sweep import DEFAULT_PRICE, faults, sweep_prices
from gateway.simulation.replays import KNOWN, Known
from router_model.head import Head, load_named
from router_model.training.outcomes import OutcomeTable, read_table
from router_model.training.prior import Ladder

OWN = Path(__file__).parents[2] / "examples/tiny_reasoner/measured/outcomes.jsonl.gz"
TABLES = os.environ.get("THINKMETER_TABLES")
"""A folder with tables of real thinking."""


def on_and_off(prompts: int = 200) -> OutcomeTable:
    """Answers without thinking are nearly as often right as long thoughts, at a fraction of the tokens."""
    random = np.random.default_rng(7)
    thoughts = np.exp(random.normal(np.log(1400), 0.7, prompts))
    finished = thoughts[:, None] < [1024, 4096]
    right = np.where(finished, 0.93, 0.3)
    return OutcomeTable(
        name="on-and-off",
        ids=tuple(map(str, range(prompts))),
        datasets=("made",) * prompts,
        prompts=tuple(
            f"A train leaves at {at} o'clock and travels {at + 30} km every hour. How far does it get in"
            f" {at % 7 + 2} hours, if it stops {at % 5} times for {at % 9 + 3} minutes each?"
            for at in range(prompts)
        ),
        tiers=("off", "some", "much"),
        correct=random.binomial(1, np.column_stack([np.full(prompts, 0.9), right])).astype(float),
        tokens=np.column_stack(
            [random.normal(220, 40, prompts), np.minimum(thoughts[:, None], [1024, 4096])]
        ),
        samples=np.ones((prompts, 3), int),
        digest="0",
    )


LADDER = Ladder(on_and_off(), {"off": 0.0, "some": 1024.0, "much": 4096.0})


@pytest.fixture(scope="module")
def general() -> Head:
    return load_named("general")


def test_points_and_prices(general: Head) -> None:
    """The points begin at price 0, contain the default price, and end where all get the cheapest tier."""
    swept = sweep_prices(general, LADDER)

    assert swept.points[0].price == 0
    assert DEFAULT_PRICE in {point.price for point in swept.points}
    assert swept.points[-1].tokens == pytest.approx(swept.fixed[0].tokens)
    assert [each.tier for each in swept.fixed] == ["off", "some", "much"]
    assert swept.token_ratio == pytest.approx(
        np.prod([each.predicted / each.tokens for each in swept.fixed]) ** (1 / 3)
    )


def test_shipped_head_does_no_harm(general: Head) -> None:
    """In front of a model with on/off outcomes it is never below the fixed budgets, and worth as much."""
    assert not list(faults(sweep_prices(general, LADDER), plain=True))


def test_own_measurements(general: Head) -> None:
    """On the outcomes of the tiny reasoner, a model it never saw, it does not fall below the fixed tiers."""
    swept = sweep_prices(
        general, Ladder(read_table(OWN, list(TIERS)), {name: float(t) for name, t in TIERS.items()})
    )

    assert swept.loss <= 0.01


def test_harm_is_found(general: Head) -> None:
    """A prior that believes in every thought wastes tokens, and expects the wrong number of them."""
    bias = general.prior.bias + np.array([3.0, 2.0, -4.0])
    eager = replace(general.prior, repaired=1.0, cut=1.0, bias=bias)
    found = list(faults(sweep_prices(replace(general, prior=eager), LADDER), plain=True))

    assert any("at the default price" in fault for fault in found)
    assert any("times the tokens" in fault for fault in found)


def test_shuffling_is_found(general: Head) -> None:
    """A policy that mixes the two ends falls below the line where the middle is above their chord."""
    table = LADDER.table
    high = np.tile([0.0, 1.0, 1.0], (len(table), 1))
    bent = replace(table, correct=high, tokens=np.tile([200.0, 900.0, 4000.0], (len(table), 1)))
    swept = sweep_prices(general, Ladder(bent, LADDER.budgets))
    assert swept.loss <= 0.01  # the prior does not shuffle

    mixed = replace(swept, points=(swept.points[0]._replace(tokens=2100.0, accuracy=0.5),))
    assert mixed.loss == pytest.approx(0.5)
    assert any("below the fixed thinking budgets" in fault for fault in faults(mixed, plain=False))


@pytest.mark.skipif(TABLES is None, reason="set THINKMETER_TABLES to a folder with tables of real thinking")
@pytest.mark.parametrize("known", KNOWN, ids=[known.title for known in KNOWN])
def test_tables_of_real_thinking(general: Head, known: Known) -> None:
    """The same on measured outcomes of real reasoning models."""
    ladder = Ladder(read_table(Path(TABLES or "", f"{known.file}.jsonl.gz"), partial=True), known.budgets)
    assert not list(faults(sweep_prices(general, ladder), plain=ladder.plain))
