"""What the watch for drift is fed from a store."""

from __future__ import annotations

from gateway.config.evidence import EvidenceSettings
from gateway.evidence.database import open_store
from gateway.evidence.drift.reading import answered, compared_pairs, graded_answers
from tests.evidence.made import NOW, decision, feedback, shadow, store_rows

UNTIL = NOW + 1_000


def test_first_judgment_counts(settings: EvidenceSettings) -> None:
    """In order of the judgments, each answer once, with the estimates of its decision."""
    first = decision(1, correct=0.8, head="h-1", tier="long", reason="prior")
    rows = [
        *(first, decision(2, correct=0.6)),
        *(feedback(1, at=NOW + 50, score=1.0), feedback(1, at=NOW + 70, score=0.0, source="tests")),
        *(feedback(2, at=NOW + 40, score=0.5), feedback(9, at=NOW + 45)),
    ]
    store_rows(settings, rows)
    engine = open_store(settings)

    found = graded_answers(engine, NOW, UNTIL)

    assert [(row.score, row.correct, row.prior) for _, row in found] == [(0.5, 0.6, False), (1.0, 0.8, True)]
    assert [name for name, _ in found] == ["dec-00000002", "dec-00000001"]
    assert (found[1][1].head, found[1][1].tier) == ("h-1", "long")
    assert [row.at for _, row in graded_answers(engine, NOW + 41, UNTIL)] == [NOW + 50]
    engine.dispose()


def test_answers_that_came_whole(settings: EvidenceSettings) -> None:
    """Errors and cancelled ones are left out; tokens that a limit has cut tell nothing."""
    rows = [
        decision(1, completion_tokens=70, tokens=90.0, reason="abstained"),
        decision(2, status=500),
        decision(3, cancelled=True),
        decision(4, truncated=True, reason="price"),
        decision(5, reason="budget"),
        decision(6, reason="model_floor", completion_tokens=80),
    ]
    store_rows(settings, rows)
    engine = open_store(settings)

    found = answered(engine, NOW, UNTIL)

    assert [(row.tokens, row.abstained) for row in found] == [
        (70, True),
        (None, False),
        (None, None),
        (80, None),
    ]
    assert found[0].expected == 90
    engine.dispose()


def test_pairs_that_were_graded(settings: EvidenceSettings) -> None:
    """A pair is lost if the shadow answer was better."""
    rows = [
        *(decision(1, tier="short"), decision(2, tier="long"), decision(3)),
        shadow(1, served_score=0.0, shadow_score=1.0),
        shadow(2, served_score=1.0, shadow_score=1.0),
        shadow(3, served_score=None),
    ]
    store_rows(settings, rows)
    engine = open_store(settings)

    found = compared_pairs(engine, NOW, UNTIL)

    assert [(row.tier, row.lost) for row in found] == [("short", True), ("long", False)]
    engine.dispose()
