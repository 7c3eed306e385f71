"""How long a run will take."""

from __future__ import annotations

import pytest

from gateway.evidence.measuring.forecast import Forecast, RungForecast, forecast_of, seen
from gateway.evidence.measuring.work import AnswerKey
from tests.evidence.measuring.making import answer


def test_forecast() -> None:
    """The sums over the rungs, and the time for a constant number of requests."""
    left = [AnswerKey(f"p{n}", rung, 0) for n in range(10) for rung in ("direct", "long")]
    each = {"direct": RungForecast(10, 1.0), "long": RungForecast(100, 9.0), "short": RungForecast(50)}

    assert forecast_of(left, each, 7, 4) == Forecast(20, 1100, 140, 25.0)
    assert forecast_of(left[:2], each, 7, 64).seconds == 5.0
    assert forecast_of([*left, AnswerKey("p0", "short", 0)], each, 7, 4).seconds is None
    assert forecast_of([], each, 7, 4) == Forecast(0, 0, 0, 0.0)


def test_what_was_seen() -> None:
    """Rungs with answers are as these show; others take as long for a token."""
    answers = [
        answer("p0", tokens=10, seconds=1.0),
        answer("p1", tokens=30, seconds=3.0),
        answer("p2", tokens=None),
    ]

    found = seen(answers, {"direct": 5.0, "long": 200.0})

    assert found["direct"] == RungForecast(20, 2.0)
    assert found["long"].tokens == 200
    assert found["long"].seconds == pytest.approx(20)
    assert seen([], {"direct": 5.0}) == {"direct": RungForecast(5.0, None)}
