"""The sums of the store are those of a loop over its rows, on SQLite and PostgreSQL."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceStore, open_store
from gateway.evidence.reporting.cells import GROUPINGS, ArmCell, Happening, ReportCells
from gateway.evidence.reporting.estimates import ClusterSums
from gateway.evidence.reporting.happenings import read_promotions
from gateway.evidence.reporting.reading import read_report
from gateway.evidence.rows import DecisionRow, FeedbackRow
from tests.evidence.made import DAY, decision, store_rows
from tests.evidence.reporting.making import COSTS, SINCE, UNTIL, rungs, traffic


@pytest.fixture
def store(settings: EvidenceSettings) -> Iterator[EvidenceStore]:
    engine = open_store(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def filled(settings: EvidenceSettings, store: EvidenceStore) -> EvidenceStore:
    outside = [decision(90_001, at=UNTIL, arm="holdout"), decision(90_002, at=SINCE - 1)]
    store_rows(settings, [*traffic(), *outside])
    return store


ROWS = [row for row in traffic() if isinstance(row, DecisionRow)]
SCORES: dict[str, list[float]] = defaultdict(list)
for each in traffic():
    if isinstance(each, FeedbackRow):
        SCORES[each.decision].append(each.score)


def amount(row: DecisionRow, name: str) -> float | None:
    if name == "score":
        scores = SCORES.get(row.id)
        return sum(scores) / len(scores) if scores else None
    if row.completion_tokens is None:
        return None
    if name == "tokens":
        return row.completion_tokens
    if row.model == "old":
        return None
    small = row.model == "small"
    if name == "gpu_hours":
        return 0.0 if small else row.completion_tokens * 0.5e-6
    prompt = row.prompt_tokens or 0
    return (prompt * 0.1 + row.completion_tokens * 0.4) / 1e6 if small else row.completion_tokens * 1.25e-6


def expected(name: str, arm: str, inside: Callable[[DecisionRow], bool] = lambda row: True) -> ClusterSums:
    talks: dict[str | None, list[float]] = defaultdict(list)
    for row in ROWS:
        value = amount(row, name)
        if row.arm == arm and row.config != "before" and inside(row) and value is not None:
            talks[row.conversation].append(value)
    n, y = [len(talk) for talk in talks.values()], [math.fsum(talk) for talk in talks.values()]
    pairs = list(zip(n, y, strict=True))
    return ClusterSums(
        *(len(n), sum(n), math.fsum(y), sum(k * k for k in n)),
        *(math.fsum(a * a for a in y), math.fsum(k * a for k, a in pairs)),
    )


def assert_same_sums(cell: ArmCell, inside: Callable[[DecisionRow], bool] = lambda row: True) -> None:
    for name, found in cell.sums.items():
        wanted = expected(name, cell.arm, inside)
        for field in ClusterSums.__struct_fields__:
            assert getattr(found, field) == pytest.approx(getattr(wanted, field), rel=1e-9), (name, field)


def test_sums_of_both_arms(filled: EvidenceStore) -> None:
    """Tokens, money, GPU hours and scores by conversation; what had no hold-out is left out."""
    cells = read_report(filled, SINCE, UNTIL, COSTS)

    assert [cell.arm for cell in cells.whole] == ["adaptive", "holdout"]
    assert cells.groups == []
    for cell in cells.whole:
        assert_same_sums(cell)
        inside = [row for row in ROWS if row.arm == cell.arm and row.config != "before"]
        assert cell.conversations == len({row.conversation for row in inside})


@pytest.mark.parametrize("by", GROUPINGS)
def test_sums_by_group(filled: EvidenceStore, by: Any) -> None:
    """By key, team or model; requests without a team are a group, too."""
    cells = read_report(filled, SINCE, UNTIL, COSTS, by).groups

    assert {cell.group for cell in cells} == {getattr(row, by) for row in ROWS}
    for cell in cells:
        assert_same_sums(cell, lambda row, cell=cell: getattr(row, by) == cell.group)  # type: ignore[misc]


def test_days(filled: EvidenceStore) -> None:
    """Days of UTC, cut at midnight, with the requests that had a minimum."""
    cells = read_report(filled, SINCE, UNTIL, COSTS).days

    found = {cell.day: cell for cell in cells}
    wanted: dict[int, list[DecisionRow]] = defaultdict(list)
    for row in ROWS:
        wanted[int(row.at // DAY)].append(row)
    assert found.keys() == wanted.keys()
    for day, rows in wanted.items():
        cell, floored = found[day], [row for row in rows if b'"lowest":1' in row.rungs]
        assert cell.requests == len(rows)
        assert cell.refused == sum(row.status == 429 for row in rows)
        assert cell.completion_tokens == sum(row.completion_tokens or 0 for row in rows)
        assert cell.price == pytest.approx(sum(row.price for row in rows))
        assert cell.highest_price == max(row.price for row in rows)
        assert cell.shortened == sum(row.wanted_rung is not None for row in rows)
        assert cell.floored == len(floored)
        assert cell.floored_refused == sum(row.status == 429 for row in floored)
        assert cell.below == sum(row.wanted_rung is not None and row.rung < 1 for row in floored)


def test_configurations(filled: EvidenceStore) -> None:
    """Each configuration by arm, with what is known of its requests."""
    cells = {(cell.config, cell.arm): cell for cell in read_report(filled, SINCE, UNTIL, COSTS).configs}

    assert {config for config, _ in cells} == {"before", "first", "second"}
    rows = [row for row in ROWS if (row.config, row.arm) == ("first", "holdout")]
    cell = cells["first", "holdout"]
    assert cell.requests == len(rows)
    assert cell.conversations == len({row.conversation for row in rows})
    assert cell.failed == cell.requests - cell.counted == sum(row.status == 429 for row in rows)
    assert cell.judged == sum(row.id in SCORES for row in rows)
    assert cell.uncosted == sum(row.model == "old" and row.status == 200 for row in rows)


def test_empty_store(store: EvidenceStore) -> None:
    """Nothing was asked, and there are no logs of other things."""
    found = read_report(store, SINCE, UNTIL, COSTS, "team")

    assert found == ReportCells(SINCE, UNTIL, [], [], [], [], found.promotions, found.alarms)
    assert not found.promotions
    assert not found.alarms


def test_logs_of_other_things() -> None:
    """A log that the store has is read for the period, oldest first; one that it lacks is None."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        assert read_promotions(connection, SINCE, UNTIL) is None
        connection.execute(
            text("CREATE TABLE promotions (at DOUBLE, action TEXT, head TEXT, by TEXT, why TEXT)")
        )
        for at, why in ((UNTIL, "late"), (SINCE + 5, None), (SINCE, "better"), (SINCE - 1, "early")):
            row = {"at": at, "why": why}
            connection.execute(text("INSERT INTO promotions VALUES (:at, 'promote', 'h2', 'ann', :why)"), row)
        assert read_promotions(connection, SINCE, UNTIL) == [
            Happening(SINCE, "promote, h2, ann, better"),
            Happening(SINCE + 5, "promote, h2, ann"),
        ]


def test_rows_of_old_versions(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Estimates without bounds have no minimum."""
    store_rows(
        settings, [decision(1, at=SINCE, wanted_rung=2), decision(2, at=SINCE, rungs=rungs(2), wanted_rung=2)]
    )

    [cell] = read_report(store, SINCE, UNTIL, COSTS).days
    assert (cell.requests, cell.floored, cell.below) == (2, 1, 1)


def test_reading_leaves_nothing(filled: EvidenceStore) -> None:
    """A report can be made again on the same connection, and gives the same."""
    assert read_report(filled, SINCE, UNTIL, COSTS) == read_report(filled, SINCE, UNTIL, COSTS)
