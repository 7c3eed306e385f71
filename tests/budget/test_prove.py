"""The proof at real processes, small; `python -m tests.budget.prove` is the whole of it."""

from __future__ import annotations

import pytest

from tests.budget.prove import prove


@pytest.mark.timeout(300)
async def test_the_promise_holds() -> None:
    """Two gateways, one killed, Redis killed and restarted: no token over, none lost, nothing leaked."""
    report = await prove(gateways=2, clients=15, seconds=6, kills=1, restarts=1)

    assert report.holds, report
    assert report.granted > 50
    assert report.states > 100
    assert report.outcomes["left"] > 5


@pytest.mark.timeout(300)
async def test_every_token_is_counted_once() -> None:
    """Of streams, cut or whole, Redis holds to the token what the access logs say, though killed twice."""
    report = await prove(gateways=2, clients=10, seconds=4, kills=0, restarts=2, streamed=1.0)

    assert report.holds, report
    assert report.tokens_counted == report.tokens_logged + 2  # one of each of the last two requests
    assert report.granted > 30
