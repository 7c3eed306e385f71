"""Old rows go, and the oldest if the store is too large: a few at a time, and not for a wrong clock."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceStore, is_sqlite, open_store
from gateway.evidence.reading import newest_rows, store_bytes, table_states
from gateway.evidence.retention import Retention, cutoff
from gateway.evidence.schema import decisions
from tests.evidence import made
from tests.evidence.made import DAY, NOW, counts, decision, eventually, measured, shadow, store_rows

MINUTE = 60.0
LARGE = 2**40


@pytest.fixture
def store(settings: EvidenceSettings) -> Iterator[EvidenceStore]:
    engine = open_store(settings)
    yield engine
    engine.dispose()


def run(retention: Retention, store: EvidenceStore, now: float) -> int:
    """One look and all its steps. Returns the number of steps."""
    assert retention.look(store, now)
    steps = 1
    while retention.step(store):
        steps += 1
        assert steps < 1_000
    return steps


def test_old_rows_of_all_tables_go(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Rows older than the limit are deleted, and younger ones stay."""
    makers = (decision, made.feedback, shadow, measured, made.candidate)
    store_rows(settings, [make(i) for make in makers for i in range(100)])

    run(Retention(1, LARGE), store, NOW + DAY + 50)

    assert set(counts(settings).values()) == {50}
    assert {state.first for state in table_states(store)} == {NOW + 50}


def test_many_rows_go_in_small_steps(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """One transaction deletes few rows, so that nobody waits for long."""
    store_rows(settings, [decision(i, at=NOW + i / 100) for i in range(4_500)])

    assert run(Retention(1, LARGE), store, NOW + 2 * DAY) >= 3
    assert counts(settings) == {}


def test_one_gateway_looks_at_a_time(store: EvidenceStore) -> None:
    """Who looks within a minute after another does nothing, also with a clock that is a little off."""
    one, other = Retention(1, LARGE), Retention(1, LARGE)

    assert one.look(store, NOW)
    assert not other.look(store, NOW)
    assert not other.look(store, NOW + 59)
    assert not other.look(store, NOW - 59)
    assert other.look(store, NOW + 60)


def test_a_clock_that_was_ahead_stops_nobody(store: EvidenceStore) -> None:
    """After a look of a clock that is a year ahead, others look on."""
    assert Retention(1, LARGE).look(store, NOW + 365 * DAY)
    assert Retention(1, LARGE).look(store, NOW)


def test_a_clock_that_jumps_ahead_costs_little(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """A look with a clock that is years ahead deletes some minutes of the oldest rows only."""
    store_rows(settings, [decision(i, at=NOW + i * 10 * MINUTE) for i in range(1_000)])

    run(Retention(90, LARGE), store, NOW + 3650 * DAY)
    assert counts(settings) == {"decisions": 997}
    for minute in range(1, 60):
        run(Retention(90, LARGE), store, NOW + 3650 * DAY + minute * MINUTE)

    assert counts(settings)["decisions"] >= 1_000 - 60 * 3  # of 144 rows a day
    run(Retention(90, LARGE), store, NOW + 8 * DAY)
    assert counts(settings)["decisions"] >= 1_000 - 60 * 3


@given(now=st.floats(-1e12, 1e12), days=st.floats(1e-3, 3650), oldest=st.floats(-1e12, 1e12))
def test_cutoff(now: float, days: float, oldest: float) -> None:
    """Nothing younger than the limit goes, and never much more than the oldest row."""
    assert cutoff(now, days, oldest) <= now - days * DAY
    assert cutoff(now, days, oldest) <= oldest + 24 * MINUTE


def test_the_oldest_go_when_the_store_is_too_large(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Rows of all tables up to the same time are deleted until the store fits; the newest stay."""
    rows = [decision(i, features=random.Random(i).randbytes(2_000)) for i in range(3_000)]
    store_rows(settings, [*rows, *map(made.feedback, range(3_000)), measured(0), measured(2_999)])
    if not is_sqlite(store):
        with store.connect() as connection:
            connection.execute(text("ANALYZE"))
    eventually(lambda: store_bytes(store) > 6_000_000)

    retention = Retention(3650, 3_000_000)
    assert retention.look(store, NOW)
    eventually(lambda: not retention.step(store))

    left = counts(settings)
    assert 200 < left["decisions"] < 2_900
    assert abs(left["feedback"] - left["decisions"]) <= 1_000
    assert left["measurements"] == 1
    assert newest_rows(store, decisions, 1)[0]["id"] == decision(2_999).id


def test_the_file_shrinks(sqlite: EvidenceSettings) -> None:
    """The room of deleted rows goes back to the file system."""
    store_rows(sqlite, [decision(i, at=NOW + i / 10, features=bytes(2_000)) for i in range(3_000)])
    engine = open_store(sqlite)
    before = Path(sqlite.file).stat().st_size
    run(Retention(1, LARGE), engine, NOW + 2 * DAY + 9_000)
    engine.dispose()  # the last one empties the log

    assert before > 6_000_000
    assert Path(sqlite.file).stat().st_size < 500_000


def test_an_empty_store_needs_nothing(store: EvidenceStore) -> None:
    """Nothing is deleted where nothing is, even if the limit is below the size of empty tables."""
    retention = Retention(1, 1)
    assert retention.look(store, time.time())
    assert not retention.step(store)
