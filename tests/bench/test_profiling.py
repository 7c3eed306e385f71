"""Checks how samples of the profiler are counted."""

from __future__ import annotations

from tests.bench.profiling import ENTRY, shares

LOOP = "thread (0x7F): MainThread"


def test_profile_counts_the_event_loop() -> None:
    """Lines of a function count together, a recursive call counts once, and the command line is left out."""
    found = shares(
        [
            f"{LOOP};main (m.py:1);{ENTRY[:-1]}:9);run (a.py:1);serve (b.py:5) 3",
            f"{LOOP};run (a.py:2);serve (b.py:7);serve (b.py:9) 2",
            "thread (0x80): worker_0;run (a.py:1) 100",
        ]
    )

    assert found.total == 5
    assert found.own == {"serve (b.py)": 5}
    assert found.inclusive == {ENTRY: 3, "run (a.py)": 5, "serve (b.py)": 5}
