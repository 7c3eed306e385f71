"""`thinkmeter evaluate --replay`: the points, the fixed budgets, and the mistakes that are named."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

pytest.importorskip("sklearn")

from examples.servers import TIERS
from gateway.cli.main import cli
from gateway.cli.simulate import EXAMPLE
from tests.cli.test_heads import evaluated


def test_replay() -> None:
    """`--replay` sweeps the price for a model that was never measured, beside the fixed budgets."""
    rungs = ",".join(f"{name}={tokens}" for name, tokens in TIERS.items())
    found = evaluated("general", EXAMPLE, "--replay", "--rungs", rungs)

    assert found.keys() >= {"points", "fixed", "token_ratio"}
    assert found["points"][0]["price"] == 0
    assert all(point.keys() == {"price", "tokens", "accuracy"} for point in found["points"])
    assert [fixed["tier"] for fixed in found["fixed"]] == list(TIERS)
    cheapest = found["fixed"][0]
    assert found["points"][-1]["tokens"] == pytest.approx(cheapest["tokens"])
    assert found["points"][-1]["accuracy"] == pytest.approx(cheapest["accuracy"])


def test_replay_with_own_evidence() -> None:
    """With outcomes of the model itself, the head decides by them, for the prompts left out."""
    rungs = ",".join(f"{name}={tokens}" for name, tokens in TIERS.items())
    found = evaluated("general", EXAMPLE, "--replay", "--rungs", rungs, "--own", "600")

    assert found["prompts"] == 1_400
    assert max(point["accuracy"] for point in found["points"]) > 0.8
    assert 0.8 < found["token_ratio"] < 1.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--replay",), "needs a head and --rungs"),
        (("--rungs", "direct=0,long=320"), "needs a head and --rungs"),
        (("--replay", "--rungs", "direct=0"), "a ladder needs two tiers"),
        (("--replay", "--rungs", "direct=0,long=much"), "with its thinking tokens"),
        (("--replay", "--rungs", "direct=0,direct=1"), "name each tier once"),
        (("--replay", "--rungs", "direct=0,long=0"), "same thinking budget"),
        (("--replay", "--rungs", "direct=0,longest=9"), "no tier 'longest'"),
        (("--replay", "--rungs", "direct=0,long=320", "--own", "5000"), "leave none"),
    ],
)
def test_replay_mistakes(options: tuple[str, ...], message: str) -> None:
    """Each mistake is named."""
    found = CliRunner().invoke(cli, ["evaluate", "general", str(EXAMPLE), *options])

    assert found.exit_code == 2
    assert message in " ".join(found.output.split())
