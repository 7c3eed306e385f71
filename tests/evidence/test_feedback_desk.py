"""Feedback meets the store: decisions that are still to be written, repetitions, and a store that is away."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.errors import FeedbackUnavailable
from gateway.evidence.feedback import Feedback, FeedbackOutcome, Rater
from gateway.evidence.feedback_desk import FeedbackDesk
from gateway.evidence.rows import DecisionRow
from gateway.evidence.writer import EvidenceWriter
from tests.evidence.made import decision

WEB = Rater("web", everybody=False)


def decided(name: str, **changes: Any) -> DecisionRow:
    """The decision for a request of the key `web`."""
    row = {"id": name, "at": time.time(), "key": "web", "request_id": f"request-{name}"}
    return decision(**row | changes)


class Store:
    """A store on disk with its writer and a desk."""

    def __init__(self, file: Path, **settings: Any) -> None:
        self.file = file
        self.writer = EvidenceWriter(EvidenceSettings(file=str(file), **settings))
        self.counts: Counter[FeedbackOutcome] = Counter()
        self.desk = FeedbackDesk(self.writer, count=lambda outcome: self.counts.update([outcome]))
        self.writer.start()
        assert self.writer.ready(10)

    async def outcomes(self, *items: Feedback, rater: Rater = WEB) -> list[FeedbackOutcome]:
        return [ruling.outcome for ruling in await self.desk.take(items, rater)]

    def close(self) -> None:
        self.desk.close()
        self.writer.close(10)

    def kept(self) -> list[tuple[Any, ...]]:
        """What is in the file, after it was closed."""
        self.close()
        with sqlite3.connect(self.file) as connection:
            query = "SELECT decision, source, score, comment FROM feedback ORDER BY decision, source"
            return connection.execute(query).fetchall()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "evidence.db")
    yield made
    made.close()


async def test_a_decision_that_waits_to_be_written(store: Store) -> None:
    """A client may judge an answer the moment it has it."""
    store.writer.put(decided("d1"))

    assert await store.outcomes(Feedback("d1", score=0.75, comment="nearly")) == ["taken"]
    assert store.kept() == [("d1", "client", 0.75, "nearly")]


async def test_a_decision_of_another_worker(store: Store, tmp_path: Path) -> None:
    """A decision that another process writes a moment later is found."""
    other = Store(tmp_path / "evidence.db")
    asking = asyncio.create_task(store.outcomes(Feedback("d1", correct=True)))
    await asyncio.sleep(0.05)
    other.writer.put(decided("d1"))
    other.writer.hurry()

    assert await asking == ["taken"]
    other.close()


async def test_a_batch_answers_for_each_item(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every item has its own outcome, in order, and contradictions inside the batch are seen."""
    monkeypatch.setattr("gateway.evidence.feedback_desk._PAUSES", (0.01,))
    for name, key in (("d1", "web"), ("d2", "web"), ("d3", "other")):
        store.writer.put(decided(name, key=key))
    store.writer.hurry()
    items = [
        Feedback("d1", correct=True),
        Feedback("d1", correct=False),
        Feedback("d1", correct=True),
        Feedback("d1", correct=False, source="judge"),
        Feedback(request_id="request-d2", correct=False),
        Feedback("d2", correct=True, replace=True),
        Feedback("d3", correct=True),
        Feedback("d4", correct=True),
    ]
    outcomes = await store.outcomes(*items)

    assert outcomes == [
        *("taken", "contradicted", "repeated", "taken", "taken", "replaced", "unknown", "unknown"),
    ]
    assert store.counts == Counter(outcomes)
    assert store.kept() == [("d1", "client", 1, None), ("d1", "judge", 0, None), ("d2", "client", 1, None)]


async def test_what_is_queued_counts_as_said(store: Store) -> None:
    """A contradiction is seen before what it contradicts is written, and long after."""
    store.writer.put(decided("d1"))
    said = [await store.outcomes(Feedback("d1", correct=word)) for word in (True, True, False)]
    assert said == [["taken"], ["repeated"], ["contradicted"]]

    async with asyncio.timeout(10):
        while not store.writer.written["feedback"]:
            await asyncio.sleep(0.01)
    later = FeedbackDesk(store.writer)  # of a gateway that was started anew
    rulings = await later.take([Feedback("d1", correct=False), Feedback("d1", correct=True)], WEB)

    assert [ruling.outcome for ruling in rulings] == ["contradicted", "repeated"]
    later.close()


async def test_what_another_gateway_replaced_is_not_remembered_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, what the store has counts, not what this gateway has queued."""
    store.writer.put(decided("d1"))
    await store.outcomes(Feedback("d1", correct=True))
    other = FeedbackDesk(store.writer)
    await other.take([Feedback("d1", correct=False, replace=True)], WEB)
    async with asyncio.timeout(10):
        while store.writer.waiting:
            store.writer.hurry()
            await asyncio.sleep(0.01)
    assert await store.outcomes(Feedback("d1", correct=False)) == ["contradicted"]

    monkeypatch.setattr("gateway.evidence.feedback_desk._QUEUED_SECONDS", 0.0)
    assert await store.outcomes(Feedback("d1", correct=False)) == ["repeated"]
    other.close()


async def test_request_ids(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request ID names the answer to this key; attempts that failed do not count. It must be one answer."""
    monkeypatch.setattr("gateway.evidence.feedback_desk._PAUSES", (0.01,))
    rows = [
        decided("d1", request_id="once"),
        decided("d2", request_id="once", key="other"),
        decided("d3", request_id="once", status=502),
        *(decided(f"t{i}", request_id="twice") for i in range(3)),
        decided("f1", request_id="foreign", key="other"),
    ]
    for row in rows:
        store.writer.put(row)
    items = [Feedback(request_id=name, correct=True) for name in ("once", "twice", "foreign", "d1")]

    assert await store.outcomes(*items) == ["taken", "refused", "unknown", "unknown"]
    assert store.kept() == [("d1", "client", 1, None)]


async def test_a_full_queue_says_so(tmp_path: Path) -> None:
    """What the writer has no room for is refused, so that the client sends it again."""
    store = Store(tmp_path / "evidence.db")
    store.writer.put(decided("d1"))
    await store.outcomes(Feedback("d1", correct=True))
    store.writer.put = lambda row: False  # type: ignore[method-assign]
    [ruling] = await store.desk.take([Feedback("d1", correct=False, replace=True)], WEB)

    assert isinstance(ruling.error, FeedbackUnavailable)
    assert ruling.error.retry_after
    assert await store.outcomes(Feedback("d1", correct=True)) == ["repeated"]
    store.close()


async def test_a_store_that_is_away(tmp_path: Path) -> None:
    """Without the store nobody knows whose the decision is: nothing is taken, and all is counted."""
    blocked = tmp_path / "file"
    blocked.touch()
    writer = EvidenceWriter(EvidenceSettings(file=str(blocked / "evidence.db")))
    counts: list[FeedbackOutcome] = []
    desk = FeedbackDesk(writer, count=counts.append)
    writer.start()
    with pytest.raises(FeedbackUnavailable):
        await desk.take([Feedback("d1", correct=True), Feedback("d2", correct=True)], WEB)

    assert counts == ["unavailable", "unavailable"]
    desk.close()
    writer.close(10)


async def test_a_store_that_breaks(store: Store) -> None:
    """An error of the database becomes one of the gateway, with its text in the log only."""
    store.writer.put(decided("d1"))
    await store.outcomes(Feedback("d1", correct=True))
    with sqlite3.connect(store.file) as connection:
        connection.execute("DROP TABLE feedback")
    with pytest.raises(FeedbackUnavailable) as raised:
        await store.desk.take([Feedback("d1", correct=True)], WEB)

    assert "feedback" not in raised.value.message
    assert "no such table" in (raised.value.detail or "")


async def test_both_kinds_of_stores(settings: EvidenceSettings) -> None:
    """SQLite and PostgreSQL find decisions by both IDs, and see contradictions in what is written."""
    writer = EvidenceWriter(settings)
    desk = FeedbackDesk(writer)
    writer.start()
    assert writer.ready(10)
    writer.put(decided("d1"))
    writer.put(decided("d2", key="other"))
    items = [Feedback("d1", correct=True, comment="✓"), Feedback(request_id="request-d1", correct=False)]
    first = await desk.take(items, WEB)
    async with asyncio.timeout(10):
        while writer.waiting:
            await asyncio.sleep(0.01)
    fresh = FeedbackDesk(writer)  # it remembers nothing
    second = await fresh.take(items, WEB)

    assert [ruling.outcome for ruling in first] == ["taken", "contradicted"]
    assert [ruling.outcome for ruling in second] == ["taken", "contradicted"]
    for each in (desk, fresh):
        each.close()
    writer.close(10)
