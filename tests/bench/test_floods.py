"""Checks what the flood bench computes from its measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.flood_clients import FLOODS
from tests.bench.floods import Clock, Memory, Outcome, Waits, markdown, memory_mib, shares, summary, verdict
from tests.bench.prober import held_up

CALM = Waits(count=100, p50=1, p99=2, longest=3, failed=0)
FINE = Outcome(Memory(100, 200, 110), CALM, CALM, {"200": 7}, gateway_share=0.5, other_share=0.0)


def test_a_stall_counts_for_all_that_it_holds_up() -> None:
    """A request of 35 ms keeps three others waiting, and the next one is due after them."""
    waits, due = held_up(5.0, 5.035)

    assert waits == pytest.approx([0.035, 0.025, 0.015, 0.005])
    assert due == pytest.approx(5.04)


@pytest.mark.parametrize("wait", [0.0, 0.001, 0.0099])
def test_a_quick_response_counts_once(wait: float) -> None:
    waits, due = held_up(5.0, 5.0 + wait)

    assert waits == pytest.approx([wait])
    assert due == pytest.approx(5.01)


def test_summary_is_in_milliseconds() -> None:
    waits = [number / 1000 for number in range(200, 0, -1)]

    assert summary(waits, {"200": 197, "503": 2, "0": 1}) == Waits(200, 101.0, 199.0, 200.0, failed=3)


def test_summary_of_one_wait() -> None:
    assert summary([0.5], {"200": 1}) == Waits(1, 500.0, 500.0, 500.0, failed=0)


def test_memory_is_read_in_mib() -> None:
    status = "Name:\tpython\nVmHWM:\t  524288 kB\nVmRSS:\t  102400 kB\n"

    assert (memory_mib(status, "VmHWM"), memory_mib(status, "VmRSS")) == (512.0, 100.0)


def test_shares_of_the_core() -> None:
    """Of ten seconds, the gateway used four, and others two."""
    assert shares(Clock(50, 1, 7), Clock(60, 5, 13)) == (0.4, 0.2)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (FINE, "ok"),
        (replace(FINE, memory=Memory(100, 513, 110)), "over 512 MiB"),
        (replace(FINE, flooded=replace(CALM, p99=51)), "p99 over 50 ms"),
        (replace(FINE, flooded=replace(CALM, failed=2)), "2 failed"),
        (replace(FINE, other_share=0.2), "ok !"),
        (
            replace(FINE, memory=Memory(1, 600, 2), flooded=replace(CALM, p99=51), other_share=0.2),
            "over 512 MiB, p99 over 50 ms !",
        ),
    ],
)
def test_verdict(outcome: Outcome, expected: str) -> None:
    assert verdict(outcome) == expected


def test_table_has_a_row_for_each_flood() -> None:
    lines = markdown(dict.fromkeys(FLOODS, FINE)).splitlines()

    assert len(lines) == 2 + len(FLOODS)
    assert lines[2].endswith("| 100 → 200 → 110 | 1.0 / 2 / 3 | 1.0 / 2 / 3 | ok |")
    assert {line.count("|") for line in lines} == {6}
