"""Finished requests reach every sink once, in order, and whoever looks sees all of them."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import BackendTimeout
from gateway.telemetry.finished import FinishedRecords
from gateway.telemetry.record import Record
from tests.serving import configuration, serving


def ended(finished: FinishedRecords, *names: str) -> None:
    for name in names:
        finished.add(Record(name), 200, None, "10.0.0.1")


async def test_sinks_get_records_in_order() -> None:
    """Sinks get the records soon, in the order in which the requests ended; some get them at once."""
    finished, first, second, at_once = FinishedRecords(), list[str](), list[str](), list[str]()
    finished.sinks += [lambda one: first.append(one.request_id), lambda one: second.append(one.request_id)]
    finished.at_once.append(lambda one: at_once.append(one.request_id))
    ended(finished, "a", "b")
    assert (first, second, at_once) == ([], [], ["a", "b"])
    async with asyncio.timeout(10):
        while not second:
            await asyncio.sleep(0.001)
    assert first == second == ["a", "b"]
    ended(finished, "c")
    finished.flush()
    finished.flush()
    assert first == second == at_once == ["a", "b", "c"]


async def test_few_records_wait() -> None:
    """However fast requests end, only so many records wait."""
    finished, seen = FinishedRecords(), list[str]()
    finished.sinks.append(lambda one: seen.append(one.request_id))
    ended(finished, *map(str, range(200)))
    assert len(seen) == 192
    finished.flush()
    assert seen == [str(number) for number in range(200)]


async def test_a_sink_that_fails_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged without its text, and all others are noted."""
    secret = "the prompt"

    def fail(record: Record) -> None:
        if record.request_id == "a":
            raise ValueError(secret)
        seen.append(record.request_id)

    finished, seen = FinishedRecords(), list[str]()
    finished.sinks += [fail, lambda one: seen.append(one.request_id)]
    ended(finished, "a", "b")
    finished.flush()
    assert seen == ["b", "a", "b"]
    assert "noting request a: ValueError" in caplog.text
    assert "the prompt" not in caplog.text


async def test_record_is_complete() -> None:
    """A record gets what its exchange knows. An error of the server is logged at once."""
    finished, record = FinishedRecords(), Record("a", error=BackendTimeout("late"))
    finished.add(record, 504, None, "10.0.0.1")
    assert (record.status, record.peer, record.error and record.error.message) == (504, "10.0.0.1", "late")
    assert record.duration > 0
    finished.add(record, 503, BackendTimeout("later"), "")
    assert record.error is not None
    assert record.error.message == "later"
    finished.flush()


async def test_who_looks_sees_all() -> None:
    """A scrape, the console and the log at shutdown have the request that has just ended."""
    async with serving(configuration("http://127.0.0.1:9")) as running:
        gateway = running.gateway
        gateway.finished.add(Record("a", route="/x"), 200, None, "")
        assert b'thinkmeter_requests_total{model="",route="/x",status="200",tier=""} 1.0' in (
            gateway.metrics.exposition()
        )
        gateway.finished.add(Record("b", route="/y"), 200, None, "")
        gateway.flush(1)
        assert gateway.metrics.requests.labels("/y", "", "", 200).value == 1
