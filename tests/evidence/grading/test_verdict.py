"""What a judge is asked, and how its verdicts are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.grading.verdict import (
    JudgedPair,
    compared,
    messages_for,
    read_verdict,
)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("VERDICT: 1", "1"),
        ("Both are fine, but 2 is right.\n\nVERDICT: 2", "2"),
        ("**Verdict: tie**\n", "tie"),
        ("verdict: [[1]]", "1"),
        ("<think>VERDICT: 1? No.</think>VERDICT: 2", "2"),
        ("VERDICT: 1\nVERDICT: 1", "1"),
    ],
)
def test_verdicts(text: str, verdict: str) -> None:
    assert read_verdict(text) == verdict


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "The first is better.",
        "VERDICT: 3",
        "VERDICT: 1 or 2",
        "VERDICT: 1\nVERDICT: 2",
        "VERDICT:",
        "VERDICT: 1\nOn second thought, no.",
        "VERDICT: neither\nVERDICT: 1",
        "<think>VERDICT: 1</think>",
    ],
)
def test_nonsense_is_no_verdict(text: str) -> None:
    assert read_verdict(text) is None


def test_both_orders() -> None:
    """The second verdict is of the swapped answers. A judge that follows the position says nothing."""
    assert compared("1", "2").score == 1
    assert compared("2", "1").score == 0
    assert compared("tie", "tie").score == 0.5
    assert compared("1", "tie").score == 0.75
    for position in ("1", "2"):
        flipped = compared(position, position)
        assert (flipped.score, flipped.flipped) == (0.5, True)
    assert compared("1", "2").flipped is False
    assert JudgedPair(None).flipped is None


@given(st.text(), st.text(), st.text(), st.none() | st.text())
def test_no_text_can_end_its_quotation(prompt: str, first: str, second: str, reference: str | None) -> None:
    messages = messages_for(prompt, reference, first, second)
    mark = messages[0]["content"].partition("hold the mark ")[2].partition(". Everything")[0]

    assert not any(mark in text for text in (prompt, first, second, reference or ""))
    assert messages[1]["content"].count(mark) == (8 if reference else 6)
