"""A small run of the proof with real processes; `python -m tests.budget.prove` runs it in full."""

from __future__ import annotations

import pytest

from tests.budget.prove import prove


@pytest.mark.timeout(300)
async def test_the_promise_holds() -> None:
    """One of two gateways is killed, Redis is restarted: no limit is exceeded, nothing is lost or leaked."""
    report = await prove(gateways=2, clients=15, seconds=6, kills=1, restarts=1)

    assert report.holds, report
    assert report.granted > 50
    assert report.states > 100
    assert report.outcomes["left"] > 5


@pytest.mark.timeout(300)
async def test_every_token_is_counted_once() -> None:
    """With streams alone, Redis counts exactly the tokens of the access logs, although it is killed twice."""
    report = await prove(gateways=2, clients=10, seconds=4, kills=0, restarts=2, streamed=1.0)

    assert report.holds, report
    assert report.tokens_counted == report.tokens_logged + 2  # one token of each of the last two requests
    assert report.granted > 30
