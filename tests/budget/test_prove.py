"""A small run of the proof with real processes; `python -m tests.budget.prove` runs it in full."""

from __future__ import annotations

import asyncio

import pytest

from tests.budget.hostile import attack, most_in_a_window
from tests.budget.prove import Report, prove


@pytest.fixture(scope="module")
def reports() -> tuple[Report, Report]:
    """Two runs side by side, because each of them mostly waits: one disturbed, one of streams alone."""

    async def both() -> tuple[Report, Report]:
        disturbed = prove(gateways=2, clients=15, seconds=6, kills=1, restarts=1)
        streams = prove(gateways=2, clients=10, seconds=4, kills=0, restarts=2, streamed=1.0, calm=True)
        return await asyncio.gather(disturbed, streams)

    return asyncio.run(both())


@pytest.mark.timeout(300)
def test_the_promise_holds(reports: tuple[Report, Report]) -> None:
    """One of two gateways is killed, Redis is restarted: no limit is exceeded, nothing is lost or leaked."""
    report, _ = reports

    assert report.holds, report
    assert report.granted > 50
    assert report.states > 100
    assert report.outcomes["left"] > 5


@pytest.mark.timeout(300)
def test_every_token_is_counted_once(reports: tuple[Report, Report]) -> None:
    """If all streams end as they should, Redis counts the tokens of the logs, although it is killed."""
    _, report = reports

    assert report.holds, report
    assert report.tokens_counted == report.tokens_logged + 2  # one token of each of the last two requests
    assert report.granted > 30


@pytest.mark.timeout(300)
async def test_clients_that_want_more_get_no_more() -> None:
    """Whatever clients ask for and hide, the backend generates no more within a window than it may hold."""
    measured = await attack(gateways=2, clients=10, seconds=3)

    assert measured.holds, measured
    assert measured.generated > 500
    assert measured.outcomes["429"] > 0


def test_tokens_within_a_window() -> None:
    """The most within a window's length, wherever it begins; later tokens belong to the next."""
    log = [[0, 10, 5], [100, 20, 0], [299, 1, 0], [300, 4, 0], [399, 9, 0]]

    assert most_in_a_window(log, 3, "completion") == 34
    assert most_in_a_window(log, 3, "total") == 36
