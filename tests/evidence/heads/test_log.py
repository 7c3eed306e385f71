"""The log of promotions says which head decides, whatever is promoted and rolled back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.heads.log import HeadProblem, follows, in_force, promoted, rolled_back
from gateway.evidence.rows import PromotionRow


def test_rolling_back_twice_goes_back_two_heads() -> None:
    log: list[PromotionRow] = []
    for head in ("a", "b", "c"):
        log.append(promoted(log, head, 1.0, "me", "why"))

    for expected in ("b", "a", None):
        log.append(rolled_back(log, 1.0, "me", "why"))
        assert log[-1].head == expected == in_force(log)[-1]
    with pytest.raises(HeadProblem, match="none to roll back"):
        rolled_back(log, 1.0, "me", "why")


def test_the_head_in_force_is_not_promoted_again() -> None:
    log = [promoted([], "a", 1.0, "me", "why")]

    with pytest.raises(HeadProblem, match="decides already"):
        promoted(log, "a", 2.0, "me", "why")


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.floats(0, 1e9)), max_size=30))
def test_the_newest_line_names_the_head_in_force(steps: list[tuple[str | None, float]]) -> None:
    """Whatever the clocks say, lines rise in number and time, and each names what decides from then on."""
    log: list[PromotionRow] = []
    for head, at in steps:
        before = in_force(log)[-1]
        try:
            line = promoted(log, head, at, "me", "") if head else rolled_back(log, at, "me", "")
        except HeadProblem:
            continue
        assert line.previous == before
        assert follows(log[-1] if log else None, line)
        assert not log or not follows(line, log[-1])
        log.append(line)
        assert line.head == in_force(log)[-1]
    assert [line.number for line in log] == list(range(1, len(log) + 1))


def test_a_restored_store_is_not_followed() -> None:
    """Its newest line is older than what is known, or there is none, until somebody adds one."""
    first = promoted([], "a", 10.0, "me", "")
    second = promoted([first], "b", 20.0, "me", "")

    assert not follows(second, first)
    assert not follows(second, None)
    assert follows(second, promoted([first], "c", 30.0, "me", ""))
