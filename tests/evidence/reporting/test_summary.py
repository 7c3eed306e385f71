"""What the report says: cautions, what was left out, words and plots."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.costs import CostSettings
from gateway.evidence.quality import Bounded
from gateway.evidence.reporting.cells import ArmCell, ConfigCell, DayCell, Happening, ReportCells
from gateway.evidence.reporting.estimates import ClusterSums
from gateway.evidence.reporting.plots import days_plot, intervals_plot, round_step
from gateway.evidence.reporting.summary import ReportedDay, SavingsReport, summarise_report
from gateway.evidence.reporting.wording import (
    about_minimums,
    happening_lines,
    left_out_table,
    report_sentences,
    saving_verdict,
    share_text,
    signed_text,
)


def config(name: str, arm: str, conversations: int, **changes: Any) -> ConfigCell:
    requests = 2 * conversations
    fields = {"counted": requests, "judged": 0, "failed": 0, "uncosted": 0}
    return ConfigCell(name, arm, requests, conversations, **fields | changes)


def single(clusters: int, mean: float) -> ClusterSums:
    """Conversations of one request each, which differ a little."""
    total = clusters * mean
    return ClusterSums(clusters, clusters, total, clusters, clusters * mean**2 * 1.01, total)


def report(*configs: ConfigCell, **changes: Any) -> SavingsReport:
    costs = changes.pop("costs", CostSettings())
    arms = changes.pop("arms", (("adaptive", single(400, 100)), ("holdout", single(40, 300))))
    fields: dict[str, Any] = {
        "whole": [
            ArmCell(None, arm, sums.clusters, dict.fromkeys(("tokens", "money", "gpu_hours"), sums))
            for arm, sums in arms
        ],
        "groups": [],
        "days": [],
        "promotions": None,
        "alarms": None,
    }
    cells = ReportCells(0, 86_400, list(configs), **fields | changes)
    return summarise_report(cells, costs)


BOTH = (config("a", "adaptive", 400), config("a", "holdout", 40))


def test_a_changed_share_is_a_caution() -> None:
    """If the held-out share changed, the arms have requests of different times."""
    same = [config("b", "adaptive", 800), config("b", "holdout", 80)]
    other = [config("b", "adaptive", 400), config("b", "holdout", 400)]

    assert not any("Caution" in each for each in report_sentences(report(*BOTH, *same)))
    assert any("Caution" in each for each in report_sentences(report(*BOTH, *other)))


def test_what_is_left_out() -> None:
    """Each reason with its number, also of models without costs, and of times without a hold-out."""
    costs = CostSettings.model_validate({"models": {"m": {"completion": 1}}})
    ours = config("a", "adaptive", 400, counted=790, uncosted=5)
    rest = [config("a", "none", 3), config("early", "adaptive", 7), config("early", "none", 2)]

    found = report(ours, BOTH[1], *rest, costs=costs)

    assert [each.requests for each in found.left_out] == [10, 14, 10, 5]
    assert [row[0] for row in left_out_table(found).rows] == ["10", "14", "10", "5"]
    assert left_out_table(report(*BOTH)).rows == [("0", "none was left out")]
    assert found.requests == 904


def test_money_needs_costs() -> None:
    """Without costs nothing is said about money; GPUs without a price have hours only."""
    hours = CostSettings.model_validate({"models": {"m": {"gpu_hours": 1}}})

    assert report(*BOTH).whole.money is None
    assert report(*BOTH).whole.gpu_hours is None
    assert report(*BOTH, costs=hours).whole.money is None
    assert report(*BOTH, costs=hours).whole.gpu_hours
    assert report(*BOTH, costs=hours.model_copy(update={"gpu_hour": 2})).whole.money


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (100, "Tokens were saved: 66.7 %"),
        (299, "A saving of tokens is not shown: +0.3 %"),
        (900, "Tokens were not saved but added: 200.0 % more"),
    ],
)
def test_words_follow_the_interval(ours: float, words: str) -> None:
    arms = (("adaptive", single(400, ours)), ("holdout", single(40, 300)))

    assert any(words in each for each in report_sentences(report(*BOTH, arms=arms)))


def test_too_few_conversations() -> None:
    """The sentence says how many there are, and how many are needed."""
    arms = (("adaptive", single(400, 100)), ("holdout", single(29, 300)))
    found = list(report_sentences(report(*BOTH, arms=arms)))

    assert any("with 400 adaptive and 29 held-out conversations" in each for each in found)


def test_minimums() -> None:
    """Days add up, and what got less than its minimum is said."""
    day = DayCell(3, 100, 5_000, 2.0, 0.05, 4, 7, 50, 6, 1, 2)

    found = report(*BOTH, days=[day, day])

    assert about_minimums(found).startswith("100 requests had a minimum")
    assert "at or above it for 96, and below it for 4. 12 ended" in about_minimums(found)
    assert about_minimums(report(*BOTH)) == "No request had a minimum."
    assert found.days[0].price == 0.02


def test_other_logs() -> None:
    """Logs that are missing, empty or filled."""
    assert happening_lines("Alarms", None) == ["Alarms: this store keeps no log of them."]
    assert happening_lines("Alarms", []) == ["Alarms: none in this period."]
    assert happening_lines("Alarms", [Happening(60, "x")]) == ["Alarms: 1970-01-01 00:01 x"]


def test_numbers_have_signs_and_intervals() -> None:
    """A real minus, three digits, and a verdict that the interval carries."""
    assert signed_text(Bounded(-120.4, -160, -80)) == "−120 (−160 to −80)"
    assert signed_text(Bounded(0.000379, 0.000281, 0.000478)) == "+0.000379 (+0.000281 to +0.000478)"
    assert share_text(Bounded(0.12, -0.01, 0.25)) == "+12.0 % (−1.0 to +25.0)"
    assert [signed_text(None), share_text(None), saving_verdict(None)] == ["not enough evidence"] * 3
    assert saving_verdict(Bounded(-1, -2, -0.5)) == "cost more"
    assert saving_verdict(Bounded(1, 0.5, 2)) == "saved"
    assert "zero" in saving_verdict(Bounded(1, -0.5, 2))


@given(st.floats(0, 4))
def test_axes_have_round_marks(width: float) -> None:
    step = round_step(width)

    assert float(f"{step:.0e}") == pytest.approx(step)
    assert width / step <= 4.0001


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.floats(-50, 50), st.floats(0, 5), st.floats(0, 5)), max_size=5
    )
)
def test_intervals_stay_in_the_picture(rows: list[tuple[str, float, float, float]]) -> None:
    """However wide an interval is, and whatever a group is called, what is drawn lies inside."""
    drawn = intervals_plot("c", [(name, Bounded(m, m - a, m + b)) for name, m, a, b in rows])

    assert drawn.count("<circle") == len(rows)
    for number in re.findall(r'(?:cx="|class="whisker" d="M|H)([-\d.]+)', drawn):
        assert 0 <= float(number) <= 480


def test_days_without_requests_are_gaps() -> None:
    """Two days ten days apart leave room for the nine between them."""
    days = [ReportedDay(day, 1, 100, 0.02, 0.02, 0, 0) for day in (20_000, 20_010)]

    drawn = days_plot("c", days, lambda day: day.completion_tokens, lambda day: day.price)
    left, right = (float(x) for x in re.findall(r'<rect class="bar" x="([\d.]+)"', drawn))

    assert right - left == pytest.approx(10 / 11 * 400, abs=1)
    assert "2024-10-04" in drawn
    assert days_plot("c", [], lambda day: day.price) == intervals_plot("c", []) == ""
