"""`thinkmeter route`: the decision for a prompt."""

from __future__ import annotations

import pytest

from tests.cli.command import run


def test_route(valid: str) -> None:
    """The command prints the tier, the reason and the estimates of each tier."""
    result = run("route", valid, "hello")

    assert result.exit_code == 0
    assert ": price" in result.stdout
    for part in (
        "direct",
        "short",
        "medium",
        "long",
        "P(right)",
        "difficulty 0.",
        "thinking tokens, ",
        "price 0.05 per 1,000 tokens",
    ):
        assert part in result.stdout


def test_route_with_a_pinned_tier(valid: str) -> None:
    """`--model tiny:long` decides as for a request with that name."""
    result = run("route", valid, "hello", "--model", "tiny:long")

    assert "long: pinned" in result.stdout


@pytest.mark.parametrize(("model", "message"), [("none", "does not exist"), ("tiny:huge", "no tier 'huge'")])
def test_route_of_an_unknown_model(valid: str, model: str, message: str) -> None:
    """An unknown model or tier gives status 2 and the message that a client gets."""
    result = run("route", valid, "hello", "--model", model)

    assert result.exit_code == 2
    assert message in result.stderr


def test_route_with_markup_in_the_prompt(valid: str) -> None:
    """Square brackets in a prompt are printed as they are, not read as terminal markup."""
    assert run("route", valid, "[/red] [bold] what?").exit_code == 0
