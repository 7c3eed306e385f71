"""Rows for an export: slices of time, pages, and which rows are selected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_tests
from hypothesis import strategies as st
from sqlalchemy import Table

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceStore, EvidenceUnavailable, open_store, settings_of
from gateway.evidence.exporting import pages as module
from gateway.evidence.exporting.pages import more_than, pages, slices
from gateway.evidence.exporting.selection import Selection
from gateway.evidence.schema import decisions, feedback, measurements, shadow_pairs
from tests.evidence import made
from tests.evidence.made import NOW, decision, measured, shadow, store_rows
from tests.evidence.postgres import RealPostgres

ALL = Selection(-math.inf, math.inf)


@pytest.fixture
def store(settings: EvidenceSettings) -> Iterator[EvidenceStore]:
    engine = open_store(settings)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 7)


def read(engine: EvidenceStore, table: Table, some: Selection) -> list[Any]:
    """The selected rows."""
    return [
        row for part in slices(engine, table, some) for page in pages(engine, table, part) for row in page
    ]


def test_every_row_once(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Slices follow each other without gap or overlap, where many rows have the same time, too."""
    rows = [decision(number, at=NOW + number // 10) for number in range(100)]
    store_rows(settings, rows)

    assert [row[0] for row in read(store, decisions, Selection(NOW, NOW + 9))] == [
        row.id for row in rows[:90]
    ]
    assert [row[0] for row in read(store, decisions, ALL)] == [row.id for row in rows]
    assert len(read(store, decisions, Selection(NOW + 3, NOW + 5))) == 20
    assert read(store, decisions, Selection(NOW + 5, NOW + 3)) == []


def test_pages_stay_small(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """A slice has a page of rows; if more are of one time, it has many pages."""
    store_rows(settings, [decision(number, at=NOW + max(0, number - 50)) for number in range(100)])

    sizes = [[len(page) for page in pages(store, decisions, part)] for part in slices(store, decisions, ALL)]

    assert sizes == [[], [14, 14, 14, 9], *[[7]] * 7]


TIMES = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 4, 5, 6, 7, 7, 8, 9, 9]


@pytest.fixture(scope="module")
def many_ties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvidenceStore]:
    settings = EvidenceSettings(file=str(tmp_path_factory.mktemp("ties") / "evidence.db"))
    store_rows(settings, [decision(number, at=float(at)) for number, at in enumerate(TIMES)])
    engine = open_store(settings)
    yield engine
    engine.dispose()


@settings_of_tests(max_examples=30)
@given(page=st.integers(1, 25), since=st.integers(-1, 11), until=st.integers(-1, 11))
def test_any_slices(many_ties: EvidenceStore, page: int, since: int, until: int) -> None:
    """However long a page is, and whatever is selected, all of its rows come, in their order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAGE", page)
        found = [row[1] for row in read(many_ties, decisions, Selection(float(since), float(until)))]

    assert found == [at for at in TIMES if since <= at < until]


def test_more_than(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Counts the rows of the time only as far as is needed."""
    store_rows(settings, map(decision, range(10)))

    assert more_than(store, decisions, ALL, 9)
    assert not more_than(store, decisions, ALL, 10)
    assert not more_than(store, decisions, Selection(NOW, NOW + 5), 5)


def test_rows_of_one_model(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Feedback belongs to the model of its decision."""
    store_rows(settings, [decision(i, model="ab"[i % 2]) for i in range(10)])
    store_rows(
        settings, [made.feedback(i) for i in range(10)] + [measured(i, model="ab"[i % 2]) for i in range(4)]
    )
    store_rows(settings, [shadow()])

    def number(table: Table, model: str) -> int:
        return len(read(store, table, Selection(-math.inf, math.inf, model)))

    assert [number(table, "a") for table in (decisions, feedback, measurements, shadow_pairs)] == [5, 5, 2, 0]
    assert number(decisions, "c") == 0


def test_rows_that_come_meanwhile(sqlite: EvidenceSettings) -> None:
    """An export holds no lock between two pages: rows are written, and those of a later time are included."""
    store_rows(sqlite, map(decision, range(30)))
    engine = open_store(sqlite)

    parts = slices(engine, decisions, ALL)
    found = list(pages(engine, decisions, next(parts)))
    store_rows(sqlite, [decision(5), decision(99)])
    found += [page for part in parts for page in pages(engine, decisions, part)]
    engine.dispose()

    assert sum(map(len, found)) == 31


def test_settings_of_a_store(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Another process can open the store from them."""
    store_rows(settings, [decision()])

    other = open_store(settings_of(store))
    try:
        assert len(read(other, decisions, ALL)) == 1
    finally:
        other.dispose()


def test_a_store_that_is_away(postgres: RealPostgres, fresh_postgres: EvidenceSettings) -> None:
    """It is one kind of error, whichever step finds it."""
    engine = open_store(fresh_postgres)
    postgres.stop()
    try:
        for step in (
            lambda: next(slices(engine, decisions, ALL)),
            lambda: list(pages(engine, decisions, ALL)),
        ):
            with pytest.raises(EvidenceUnavailable):
                step()
    finally:
        postgres.start()
    engine.dispose()


def test_a_damaged_file(sqlite: EvidenceSettings) -> None:
    """What the driver finds while it reads is that error as well."""
    store_rows(sqlite, map(decision, range(2_000)))
    engine = open_store(sqlite)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
        root = connection.exec_driver_sql(
            "SELECT rootpage FROM sqlite_master WHERE name = 'decisions'"
        ).scalar()
        size = connection.exec_driver_sql("PRAGMA page_size").scalar()
    engine.dispose()
    with Path(sqlite.file).open("r+b") as file:
        file.seek((root - 1) * size)  # type: ignore[operator]
        file.write(b"\xff" * size)  # type: ignore[operator]
    engine = open_store(sqlite)
    with pytest.raises(EvidenceUnavailable, match="malformed"):
        list(pages(engine, decisions, ALL))
    engine.dispose()
