"""What the rows say about the quality of answers: shares, differences, and how much is missing."""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import EvidenceStore, open_store
from gateway.evidence.quality import OF_INTEREST, ArmComparison, quality_of
from gateway.evidence.quality_board import QualityBoard
from gateway.evidence.quality_cells import JudgedAnswer, PairCell, SummaryCell
from gateway.evidence.quality_reading import read_quality
from gateway.evidence.writer import EvidenceWriter
from tests.evidence import made
from tests.evidence.made import NOW, decision, eventually_async, shadow, store_rows


def cell(arm: str, right: float, rated: int, **changes: Any) -> SummaryCell:
    """A cell of 2 × `rated` requests with 100 completion tokens each."""
    requests = 2 * rated
    fields: dict[str, Any] = {
        "model": "tiny",
        "arm": arm,
        "rung": 1,
        "tier": "short",
        "requests": requests,
        "failed": 0,
        "prompt_tokens": 0,
        "completion_tokens": 100 * requests,
        "reasoning_tokens": 0,
        "answered": requests,
        "token_squares": 11_000 * requests,
        "expected_tokens": 0.0,
        "expected_right": 0.0,
        "rated": rated,
        "right": right,
        "right_squares": right,
        "rated_expected_right": 0.6 * rated,
        "rated_tokens": 0,
    }
    return SummaryCell(**fields | changes)


def compared(*cells: SummaryCell) -> ArmComparison | None:
    return quality_of(cells, [], [], []).models[0].comparison


def test_difference_of_two_shares() -> None:
    """Newcombe's own example: 56 of 70 and 48 of 80 differ by 0.2, from 0.0524 to 0.3339."""
    found = compared(cell("adaptive", 56, 70), cell("holdout", 48, 80))

    assert found
    assert found.right.mean == pytest.approx(0.2)
    assert (found.right.low, found.right.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_rungs_of_an_arm_add_up() -> None:
    """An arm is the sum of its rungs, not the mean of their shares."""
    model = quality_of([cell("adaptive", 1, 2), cell("adaptive", 98, 98, rung=2)], [], [], []).models[0]
    [arm] = model.arms

    assert [group.rung for group in model.rungs] == [1, 2]
    assert (arm.requests, arm.rated, arm.tokens) == (200, 100, 100)
    assert arm.right
    assert arm.right.mean == pytest.approx(0.99)
    assert arm.expected == pytest.approx(0.6)
    assert model.comparison is None


def test_nothing_is_said_without_feedback() -> None:
    """Without judged answers there is no share, and no comparison, but there are tokens."""
    model = quality_of([cell("adaptive", 0, 0, requests=5), cell("holdout", 3, 4)], [], [], []).models[0]

    assert [group.right is None for group in model.arms] == [True, False]
    assert [group.tokens for group in model.arms] == [None, 100]
    assert model.comparison is None
    assert quality_of([], [], [], []).models == []


@given(st.integers(1, 3_000), st.integers(1, 3_000), st.floats(0, 1), st.floats(0, 1))
def test_missing_answers_suffice(n: int, m: int, ours: float, theirs: float) -> None:
    """With as many more, and enough of the adaptive arm, the interval is about as narrow as was said."""
    first = compared(cell("adaptive", round(ours * n), n), cell("holdout", round(theirs * m), m))
    assert first
    p, q = round(ours * n) / n, round(theirs * m) / m
    enough = m + first.missing
    more = max(n, 5_000)
    second = compared(cell("adaptive", p * more, more), cell("holdout", q * enough, enough))

    assert second
    assert second.right.high - second.right.low <= 2 * OF_INTEREST * 1.05
    assert first.right.low <= first.right.mean <= first.right.high


def test_tokens_saved() -> None:
    """The share of tokens that adaptive answers need less; the interval narrows with the number."""
    wide = compared(
        cell("adaptive", 8, 10), cell("holdout", 8, 10, completion_tokens=4_000, token_squares=900_000)
    )
    narrow = compared(
        cell("adaptive", 800, 1_000),
        cell("holdout", 800, 1_000, completion_tokens=400_000, token_squares=90_000_000),
    )

    assert wide
    assert wide.saved
    assert narrow
    assert narrow.saved
    assert wide.saved.mean == narrow.saved.mean == pytest.approx(0.5)
    assert wide.saved.low < narrow.saved.low < 0.5 < narrow.saved.high < wide.saved.high


# --- from a store -----------------------------------------------------------------------------------


@pytest.fixture
def store(settings: EvidenceSettings) -> Iterator[EvidenceStore]:
    engine = open_store(settings)
    yield engine
    engine.dispose()


def test_read_from_a_store(settings: EvidenceSettings, store: EvidenceStore) -> None:
    """Calibration, pairs and the newest feedback are those of a loop over the rows."""
    rng = random.Random(5)
    rows = [decision(i, correct=rng.choice([0.0, 0.05, 0.1, 0.35, 0.5, 0.95, 1.0])) for i in range(300)]
    said = [made.feedback(i, score=rng.choice([0.0, 0.5, 1.0])) for i in range(0, 300, 2)]
    pairs = [
        shadow(1, served_score=0.0, flipped=True),
        shadow(2, served_score=0.5, shadow_score=0.5, flipped=False),
        shadow(3, shadow_score=0.0, shadow_tokens=None),
        shadow(4, served_score=None),
    ]
    store_rows(settings, [*rows, *said, *pairs, made.feedback(9_999, source="late", score=0.25)])

    found = read_quality(store, NOW, NOW + 10_000)
    [model] = found.models

    for bin_, tenth in zip(model.calibration, (0, 1, 3, 5, 9), strict=True):
        mine = [(r, f) for r, f in zip(rows[::2], said, strict=True) if min(9, int(r.correct * 10)) == tenth]
        assert bin_.rated == len(mine)
        assert bin_.expected == pytest.approx(math.fsum(r.correct for r, _ in mine) / len(mine))
        assert bin_.right.mean == pytest.approx(math.fsum(f.score for _, f in mine) / len(mine))
    assert model.pairs == [PairCell("tiny", 1, 2, 1, 1, 1, 1, 1, 330, 1_050)]
    assert found.feedback[0] == JudgedAnswer(NOW + 9_999, None, None, None, "late", 0.25)
    assert found.feedback[1] == JudgedAnswer(NOW + 298, "tiny", "short", "adaptive", "client", said[-1].score)
    assert len(found.feedback) == 12


def test_an_empty_store(store: EvidenceStore) -> None:
    """There is nothing to say."""
    assert read_quality(store, 0, NOW).models == []


async def test_board_reads_once_for_all(sqlite: EvidenceSettings) -> None:
    """What was read is kept for a while; a store that is away is said."""
    store_rows(sqlite, [decision(0), made.feedback(0)])
    writer = EvidenceWriter(sqlite)
    board = QualityBoard(sqlite, writer, clock=lambda: NOW + 60)
    assert await board.show() == {"state": "opening", "detail": None}
    writer.start()
    await eventually_async(lambda: writer.engine)

    first = await board.show()
    with sqlite3.connect(sqlite.file) as connection:
        connection.execute("DELETE FROM feedback")
    assert await board.show() == first
    board._until = 0.0
    later = await board.show()
    writer.failing = "no disk"
    away = await board.show()
    board.close()
    writer.close(10)

    assert first["state"] == "ready"
    assert [first["models"][0]["arms"][0]["rated"], later["models"][0]["arms"][0]["rated"]] == [1, 0]
    assert {each["table"]: each["rows"] for each in first["store"]["tables"]}["decisions"] == 1
    assert away == {"state": "away", "detail": "no disk"}
