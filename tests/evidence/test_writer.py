"""The writer takes every row without waiting, and writes it once, whatever is in it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from sqlalchemy import Table, select

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store
from gateway.evidence.rows import Row
from gateway.evidence.schema import STORED, decisions, feedback
from gateway.evidence.writer import EvidenceWriter
from tests.evidence import made
from tests.evidence.made import DAY, NOW, counts, decision, eventually, measured, shadow, store_rows


def rows_of(settings: EvidenceSettings, table: Table) -> list[dict[str, Any]]:
    engine = open_store(settings)
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(select(table)).mappings()]
    engine.dispose()
    return found


@pytest.mark.parametrize("kind", STORED)
def test_rows_and_tables_have_the_same_fields(kind: type[Row]) -> None:
    """Every field of a row has a column, and the reverse."""
    assert set(kind.__struct_fields__) == set(STORED[kind].columns.keys())


@pytest.mark.parametrize("make", [decision, made.feedback, shadow, measured, made.candidate])
def test_a_row_comes_back_as_it_was(settings: EvidenceSettings, make: Any) -> None:
    """All values are kept, with empty ones, long ones and those of other scripts."""
    row = make(0)
    plain = {name: value for name, value in msgspec.structs.asdict(row).items() if value is None}
    full = make(1, **{name: "öl 🦜" for name in plain if name not in _NUMBERS and name != "features"})

    writer = store_rows(settings, [row, full])

    found = rows_of(settings, STORED[type(row)])
    assert sorted(map(repr, found)) == sorted(repr(_in_order(r)) for r in (row, full))
    assert writer.written == {STORED[type(row)].name: 2}


_NUMBERS = {"cap", "flipped", "wanted_rung"}


def _in_order(row: Row) -> dict[str, Any]:
    """The fields of a row, in the order of the columns."""
    return {column.name: getattr(row, column.name) for column in STORED[type(row)].columns}


def test_many_rows_of_all_kinds(settings: EvidenceSettings) -> None:
    """Rows of several kinds between each other are all written, in whatever number."""
    rows = [make(i) for i in range(1_391) for make in (decision, made.feedback)] + [shadow(), measured()]

    writer = store_rows(settings, rows)

    assert counts(settings) == {"decisions": 1391, "feedback": 1391, "shadow_pairs": 1, "measurements": 1}
    assert dict(writer.written) == counts(settings)
    assert (writer.waiting, writer.failing, dict(writer.dropped)) == (0, None, {})


def test_a_row_written_again_is_replaced(settings: EvidenceSettings) -> None:
    """Ids are written once, in the same batch and later ones: the last row counts."""
    store_rows(
        settings, [made.feedback(1, score=0.0), made.feedback(1, score=1.0), made.feedback(1, source="b")]
    )
    store_rows(settings, [made.feedback(1, score=0.5, comment="on reflection")])

    found = {row["source"]: (row["score"], row["comment"]) for row in rows_of(settings, feedback)}
    assert found == {"client": (0.5, "on reflection"), "b": (1.0, None)}


@pytest.mark.parametrize(
    ("changes", "stored"),
    [
        ({"error": "\ud800"}, {"error": "?"}),
        ({"prompt": "\udfff and \0"}, {"prompt": "? and \ufffd"}),
        ({"prompt_tokens": 2**70}, {"prompt_tokens": 2**31 - 1}),
    ],
)
def test_odd_values_are_mended(settings: EvidenceSettings, changes: Any, stored: Any) -> None:
    """What a database does not take is replaced, and the rows beside it are as they were."""
    writer = store_rows(settings, [decision(0), decision(1, **changes), decision(2)])

    found = rows_of(settings, decisions)
    assert len(found) == 3
    (odd,) = (row for row in found if row["id"] == decision(1).id)
    assert {name: odd[name] for name in stored} == stored
    assert not writer.dropped


def test_postgres_gets_texts_that_it_takes(fresh_postgres: EvidenceSettings) -> None:
    """A text that is too long for its column is cut, and the null character is replaced."""
    store_rows(fresh_postgres, [decision(0, model="m" * 1_000, error="a\0b")])

    (row,) = rows_of(fresh_postgres, decisions)
    assert (row["model"], row["error"]) == ("m" * 128, "a\ufffdb")


def test_impossible_rows_are_dropped_and_counted(
    settings: EvidenceSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that cannot be stored costs no other row."""
    bad: Any = [decision(i, model=None) for i in (3, 777)] + [decision(5, tier={"not": "a text"})]

    writer = store_rows(settings, [*map(decision, range(1_000)), *bad, made.feedback()])

    assert writer.dropped == {"invalid": 3}
    assert counts(settings) == {"decisions": 1_000, "feedback": 1}
    assert writer.written == {"decisions": 1_000, "feedback": 1}
    (line,) = (record.message for record in caplog.records if "refuses" in record.message)
    assert "NULL" in line.upper()
    assert "alice" not in line  # no values of the row


def test_rows_are_written_soon(sqlite: EvidenceSettings) -> None:
    """A row is written without others, and the writer goes on."""
    writer = EvidenceWriter(sqlite)
    writer.start()
    for number in range(3):
        assert writer.put(decision(number))
        eventually(lambda number=number: writer.written["decisions"] == number + 1)
    writer.close(30)

    assert counts(sqlite) == {"decisions": 3}


def test_queue_is_bounded(sqlite: EvidenceSettings) -> None:
    """Before the store is open, only as many rows wait as configured, and the others are counted."""
    writer = EvidenceWriter(sqlite.model_copy(update={"queue": 100}))

    assert [writer.put(decision(i)) for i in range(150)] == [True] * 100 + [False] * 50
    assert (writer.waiting, writer.dropped["full"]) == (100, 50)

    writer.start()
    writer.close(30)
    assert counts(sqlite) == {"decisions": 100}


def test_waiting_prompts_are_bounded(sqlite: EvidenceSettings) -> None:
    """Few rows with long prompts do not fill the memory, and room returns when they are written."""
    writer = EvidenceWriter(sqlite)
    long = "x" * 2**23
    assert [writer.put(decision(i, prompt=long)) for i in range(6)] == [True] * 4 + [False] * 2
    assert writer.put(decision(7))

    writer.start()
    eventually(lambda: writer.waiting == 0)
    assert writer.put(decision(8, prompt=long))
    writer.close(30)
    assert counts(sqlite) == {"decisions": 6}


def test_close_without_start(sqlite: EvidenceSettings) -> None:
    """A writer that never started counts its rows as lost."""
    writer = EvidenceWriter(sqlite)
    writer.put(decision())
    writer.close(1)

    assert writer.dropped == {"shutdown": 1}


def test_idle_writer_ends_at_once(settings: EvidenceSettings) -> None:
    """Closing waits for nothing that is not there."""
    writer = EvidenceWriter(settings)
    writer.start()
    assert writer.ready(30)
    writer.close(30)

    assert not writer._thread.is_alive()
    assert len(writer.secret or b"") == 32


def test_old_rows_go_while_new_ones_come(sqlite: EvidenceSettings) -> None:
    """The writer deletes by age by itself, and a gateway that looked a moment ago keeps others from it."""
    store_rows(sqlite, [decision(0, at=time.time() - 91 * DAY), decision(1, at=time.time())])
    writer = EvidenceWriter(sqlite)
    writer.start()
    eventually(lambda: counts(sqlite) == {"decisions": 1})
    writer.close(30)

    store_rows(sqlite, [decision(0, at=NOW - 3650 * DAY)])
    other = EvidenceWriter(sqlite)
    other.start()
    assert other.ready(30)
    other.put(decision(2, at=time.time()))
    eventually(lambda: other.written["decisions"])
    other.close(30)
    assert counts(sqlite) == {"decisions": 3}
