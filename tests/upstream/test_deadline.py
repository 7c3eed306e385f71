"""The deadlines of attempts, which one timer sweeps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.config.models import Replica, Timeouts
from gateway.errors import BackendTimeout, GatewayError
from gateway.upstream.deadline import Deadline, Deadlines
from gateway.upstream.pool import Backend
from gateway.upstream.request import UpstreamRequest

TIMEOUTS = Timeouts(first_byte=5, total=100)


class Waiting:
    """A response that notes how it fails."""

    def __init__(self) -> None:
        self.failures: asyncio.Queue[GatewayError] = asyncio.Queue()
        self.fail = self.failures.put_nowait


def deadline(*, now: float = 0.0, healthy: bool | None = True, **request: Any) -> Deadline:
    backend = Backend("a", Replica(url="http://a"), healthy=healthy)
    asked = UpstreamRequest("/v1/x", b"", [], **request)
    limit = now + (TIMEOUTS.first_byte if asked.stream else TIMEOUTS.total)
    return Deadline(backend, asked, TIMEOUTS, limit, now + TIMEOUTS.total)


@pytest.mark.parametrize(
    ("found", "limit", "name"),
    [
        (deadline(stream=True), 5, "timeouts.first_byte, 5 s"),
        (deadline(), 100, "timeouts.total, 100 s"),
        (deadline(stream=True, healthy=False, late=True), 5, "timeouts.first_byte, 5 s"),
    ],
    ids=["stream", "whole", "late but dead"],
)
def test_when_it_is_missed(found: Deadline, limit: float, name: str) -> None:
    """Streams must begin within `first_byte`, and whole responses be there within `total`."""
    assert found.connected_by == limit
    assert found.due(0) == limit
    assert found.due(limit) == limit
    assert found.missed.detail == name


@pytest.mark.parametrize("silence", ["late", "holds_back"])
def test_silent_work_has_until_the_end(silence: str) -> None:
    """A live backend that may be at work in silence is looked at every second, until the total is over."""
    found = deadline(stream=True, **{silence: True})

    assert found.connected_by == 100
    assert [found.due(now) for now in (0, 5, 50, 99.5, 100)] == [5, 6, 51, 100, 100]


async def test_those_that_are_missed_fail() -> None:
    """Only an attempt that is late and still runs fails, however many others there are."""
    deadlines, now = Deadlines(), asyncio.get_running_loop().time()
    missed, over, met = Waiting(), Waiting(), Waiting()

    def watch(response: Any, began: float, *, stream: bool) -> Deadline:
        found = deadline(now=began, stream=stream)
        deadlines.watch(found, response)
        return found

    watch(met, now, stream=False)
    deadlines.forget(watch(over, now - 10, stream=True))
    watch(missed, now - 10, stream=True)

    assert isinstance(await missed.failures.get(), BackendTimeout)
    assert over.failures.empty()
    assert met.failures.empty()

    again = Waiting()
    watch(again, now - 10, stream=True)  # an earlier deadline than the one that the timer is set for now
    assert isinstance(await again.failures.get(), BackendTimeout)
    assert met.failures.empty()
    deadlines.close()
