"""The gate: not worse in value, better in right answers or tokens, and calibrated."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.evidence.heads.gate import (
    CALIBRATION,
    VALUE_MARGIN,
    Difference,
    HeadComparison,
    judged,
    objection,
)
from gateway.evidence.rows import HeadRow

GOOD: dict[str, Any] = {
    "value": Difference(0.01, 0.0, 0.02),
    "correct": Difference(0.0, -0.01, 0.01),
    "tokens": Difference(-40.0, -60.0, -20.0),
    "calibration": Difference(0.01, -0.02, 0.04),
    "answers": 800,
}


@pytest.mark.parametrize(
    ("changes", "against"),
    [
        ({}, None),
        ({"tokens": Difference(0, -5, 5), "correct": Difference(0.02, 0.001, 0.04)}, None),
        ({"value": Difference(0.0, -VALUE_MARGIN, VALUE_MARGIN)}, None),
        ({"value": Difference(0.0, -0.02, 0.02)}, "perhaps worse in value"),
        ({"value": Difference(-0.1, -0.12, -0.08)}, "worse in value"),
        ({"tokens": Difference(-10, -30, 10)}, "better neither"),
        ({"calibration": Difference(0.1, CALIBRATION + 0.01, 0.2)}, "not calibrated"),
        ({"calibration": Difference(-0.1, -0.2, -CALIBRATION - 0.01)}, "not calibrated"),
        ({"value": Difference(float("nan"), float("nan"), float("nan"))}, "worse in value"),
        ({"calibration": Difference(float("nan"), float("nan"), float("nan"))}, "not calibrated"),
    ],
)
def test_gate(changes: dict[str, Any], against: str | None) -> None:
    verdict = judged(HeadComparison(**GOOD | changes))

    assert verdict.passes is (against is None)
    assert against is None or against in "; ".join(verdict.reasons)


def row(state: str, verdict: dict[str, Any] | None) -> HeadRow:
    return HeadRow("a-1", 0.0, {}, state, verdict, 1)


def test_objections() -> None:
    """A head needs a verdict in its favour, also if it has decided before."""
    passed = judged(HeadComparison(**GOOD)).plain()

    assert objection(row("candidate", None)) == "nobody has compared it with the head that decides"
    assert objection(row("candidate", {"passes": False, "reasons": ["worse"]})) == "worse"
    assert objection(row("candidate", passed)) is None
    assert objection(row("retired", passed)) is None
