"""What is read from the store: owners, feedback, sums, states, and pages for exports."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceStore, EvidenceUnavailable, open_store
from gateway.evidence.reading import (
    SummaryCell,
    TableState,
    decision_owners,
    feedback_given,
    newest_rows,
    store_bytes,
    summary,
    table_states,
)
from gateway.evidence.schema import decisions
from tests.evidence import made
from tests.evidence.made import NOW, decision, store_rows
from tests.evidence.postgres import RealPostgres


@pytest.fixture
def store(settings: EvidenceSettings) -> Iterator[EvidenceStore]:
    engine = open_store(settings)
    yield engine
    engine.dispose()


def test_owners_and_feedback_by_id(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Many ids are asked for at once; unknown ones are left out."""
    store_rows(settings, [*(decision(i) for i in range(1_200)), decision(2_000, key=None)])
    store_rows(settings, [made.feedback(7, score=0.25), made.feedback(7, source="b"), made.feedback(8_888)])

    ids = [decision(i).id for i in range(2_001)]
    owners = decision_owners(store, ids)
    assert len(owners) == 1_201
    assert (owners[ids[5]].key, owners[ids[5]].at) == ("alice", NOW + 5)
    assert owners[ids[2_000]].key is None
    given = feedback_given(store, ids)
    assert {place: row.score for place, row in given.items()} == {
        (ids[7], "client"): 0.25,
        (ids[7], "b"): 1.0,
    }
    assert decision_owners(store, []) == {}


def test_summary_adds_up(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """The sums are those of a loop over the rows."""
    rng = random.Random(3)
    rows = [
        decision(
            number,
            model=rng.choice("ab"),
            arm=rng.choice(["adaptive", "holdout"]),
            rung=rng.randrange(3),
            status=rng.choice([200, 200, 502]),
            completion_tokens=rng.choice([None, 10, 300]),
            reasoning_tokens=rng.choice([None, 5]),
            correct=rng.random(),
        )
        for number in range(600)
    ]
    said = [
        made.feedback(rng.randrange(700), source=rng.choice("xyz"), score=rng.choice([0, 0.5, 1.0]))
        for _ in range(300)
    ]
    store_rows(settings, [*rows, *said])
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for row in said:
        scores[row.decision][row.source] = row.score

    found = summary(store, NOW + 100, NOW + 500)

    assert [(cell.model, cell.arm, cell.rung) for cell in found] == [
        (m, a, r) for m in "ab" for a in ("adaptive", "holdout") for r in range(3)
    ]
    for cell in found:
        mine = [r for r in rows[100:500] if (r.model, r.arm, r.rung) == (cell.model, cell.arm, cell.rung)]
        rated = [(r, sum(s.values()) / len(s)) for r in mine if (s := scores.get(r.id))]
        expected = SummaryCell(
            *(cell.model, cell.arm, cell.rung, "short"),
            requests=len(mine),
            failed=sum(r.status >= 400 for r in mine),
            prompt_tokens=sum(r.prompt_tokens or 0 for r in mine),
            completion_tokens=sum(r.completion_tokens or 0 for r in mine),
            reasoning_tokens=sum(r.reasoning_tokens or 0 for r in mine),
            answered=sum(r.completion_tokens is not None for r in mine),
            token_squares=sum((r.completion_tokens or 0) ** 2 for r in mine),
            expected_tokens=sum(r.tokens for r in mine),
            expected_right=sum(r.correct for r in mine),
            rated=len(rated),
            right=sum(score for _, score in rated),
            right_squares=sum(score**2 for _, score in rated),
            rated_expected_right=sum(r.correct for r, _ in rated),
            rated_tokens=sum(r.completion_tokens or 0 for r, _ in rated),
        )
        for name in cell.__struct_fields__[4:]:
            assert getattr(cell, name) == pytest.approx(getattr(expected, name)), name


def test_summary_of_nothing(store: EvidenceStore) -> None:
    """An empty store has no cells."""
    assert summary(store, -math.inf, math.inf) == []


def test_states(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Rows and times of every table, the size, and the newest rows."""
    store_rows(settings, [*map(decision, range(50)), made.feedback(3)])

    assert table_states(store) == [
        TableState("decisions", 50, NOW, NOW + 49),
        TableState("feedback", 1, NOW + 3, NOW + 3),
        TableState("shadow_pairs", 0, None, None),
        TableState("measurements", 0, None, None),
        TableState("candidate_decisions", 0, None, None),
    ]
    assert [row["id"] for row in newest_rows(store, decisions, 2)] == [decision(49).id, decision(48).id]
    assert 0 <= store_bytes(store) < 10**6


def test_a_store_that_is_away_is_one_error(postgres: RealPostgres, fresh_postgres: EvidenceSettings) -> None:
    """Every reader has the same error."""
    engine = open_store(fresh_postgres)
    postgres.stop()
    try:
        for read in (
            lambda: summary(engine, 0, 1),
            lambda: table_states(engine),
            lambda: decision_owners(engine, ["a"]),
        ):
            with pytest.raises(EvidenceUnavailable):
                read()
    finally:
        postgres.start()
    engine.dispose()
