"""Checks what the bench computes from its measurements: tables and goals."""

from __future__ import annotations

import os

import msgspec
import pytest

from tests.bench import goals, report, summary
from tests.bench.figures import busiest_share, growth, unhindered_rate
from tests.bench.jobs import Job, Result
from tests.bench.load import foreign
from tests.bench.machine import looped
from tests.bench.report import COLUMNS
from tests.bench.targets import OWN
from tests.bench.trials import TRIALS, WORKERS

DIRECT = Result(seconds=2, requests=100, chunks=1_000, p50_ms=0.2, delay_p99_ms=1.0)
PEER = msgspec.structs.replace(DIRECT, target_cpu_s=0.01)
OURS = msgspec.structs.replace(
    DIRECT, requests=300, chunks=2_400, p50_ms=0.5, p99_ms=3.0, quiet_p99_ms=2.0, delay_p99_ms=7.5,
    target_cpu_s=0.03, busiest_cpu_s=0.02, kib_per_connection=30.0,
)  # fmt: skip
FOUND = {"direct": [DIRECT], "thinkmeter-all": [OURS], "vllm-router": [PEER]}
ONE_WORKER = msgspec.structs.replace(OURS, target_cpu_s=0.04, busiest_cpu_s=0.04)
WORKED = {"one-worker": [ONE_WORKER], "two-workers": [OURS]}


def cells(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("trial", TRIALS)
def test_every_trial_has_a_table(trial: str) -> None:
    text = report.markdown({"machine": {}, "results": {trial: FOUND}}, {trial: "title"})

    assert len(cells(text, "thinkmeter-all")) == len(COLUMNS[trial]) + 4


def test_figures_stand_beside_the_peer() -> None:
    """150 requests/s are 3 times 50, at the same 100 µs each; a target without the peer has no ratio."""
    text = report.markdown({"machine": {}, "results": {"requests": FOUND}}, {"requests": "title"})
    alone = report.markdown(
        {"machine": {}, "results": {"requests": {"thinkmeter-all": [OURS]}}}, {"requests": "title"}
    )

    assert cells(text, "thinkmeter-all")[1:7] == ["150", "0.500", "3.000", "100", "3.00", "1.00"]
    assert cells(text, "direct")[4] == "-"
    assert cells(alone, "thinkmeter-all")[5:7] == ["-", "-"]


def test_goals() -> None:
    """Each row says what was measured, and whether that is enough."""
    text = goals.markdown(dict.fromkeys(TRIALS, FOUND) | {"workers": WORKED})

    assert [cells(text, goal.about)[3] for goal in goals.GOALS] == [
        "missed", "missed", "reached", "reached", "missed", "reached", "reached", "reached",
    ]  # fmt: skip
    assert cells(text, "paced streams")[1:3] == ["≤ 0.9 × vllm-router", "1.25 × vllm-router"]
    assert cells(text, "two workers")[2] == "2.00 × one worker"


def test_goals_without_the_peer() -> None:
    text = goals.markdown({"paced": {"thinkmeter-all": [OURS]}})

    assert cells(text, "paced streams")[2:] == ["-", "not measured"]


def test_a_goal_is_missed_on_the_wrong_side() -> None:
    least = next(goal for goal in goals.GOALS if goal.sign == "≥")
    most = next(goal for goal in goals.GOALS if goal.sign == "≤")

    assert [goals.verdict(least, value) for value in (least.bound, least.bound - 0.01)] == [
        "reached",
        "missed",
    ]
    assert [goals.verdict(most, value) for value in (most.bound, most.bound + 0.01)] == ["reached", "missed"]


def test_goals_refer_to_trials_of_the_whole_product() -> None:
    for goal in goals.GOALS:
        assert TRIALS[goal.trial].fits(OWN[goal.target])


def test_workers_are_measured_alone() -> None:
    """Only the trial that compares them has the targets with workers."""
    fitting = {
        name: {trial for trial in TRIALS if TRIALS[trial].fits(target)} for name, target in OWN.items()
    }

    assert all(("workers" in trials) == (name in WORKERS) for name, trials in fitting.items())
    assert all(fitting[name] == {"workers"} for name in WORKERS)


def test_the_busiest_process_bounds_the_rate() -> None:
    assert unhindered_rate(OURS) == 15_000
    assert unhindered_rate(DIRECT) is None
    assert busiest_share(OURS) == pytest.approx(200 / 3)


def test_growth_of_waits() -> None:
    assert growth(OURS) == 1.5
    assert growth(DIRECT) is None


@pytest.mark.parametrize(
    ("cores", "pids", "expected"),
    [([0], [5], 0.3), ([0], [], 0.2), ([0, 1], [5], 0.5)],
)
def test_foreign_time(cores: list[int], pids: list[int], expected: float) -> None:
    """Cores were busy 1 and 0.6 s; the target used 0.7 s and the bench 0.4 s."""
    job = Job(port=1, path="/", headers={}, body="", connections=1, target_cores=cores, target_pids=pids)

    assert foreign([1.0, 0.6], job, bench=0.4, target=0.7) == pytest.approx(expected)


def test_summary_has_a_row_for_each_target() -> None:
    """In brackets stands the ratio to the peer; the direct path has nothing added."""
    text = summary.markdown(dict.fromkeys(TRIALS, FOUND))

    assert cells(text, "thinkmeter-all")[1:] == [
        "150 (3.00)", "100 (1.00)", "0.30", "1,200 (2.40)", "12.5 (1.25)", "6.5", "30",
    ]  # fmt: skip
    assert cells(text, "vllm-router")[1:4] == ["50", "100", "0.00"]
    assert cells(text, "direct")[3] == "-"


def test_a_run_without_the_product_whole_has_no_goals() -> None:
    assert goals.markdown({"workers": {"one-worker": [OURS]}}) == ""
    assert summary.markdown({"workers": {"one-worker": [OURS]}}) == ""


def test_two_loops_stand_below_the_workers() -> None:
    text = report.markdown(
        {"machine": {}, "two_loops": 1.789, "results": {"workers": WORKED}}, {"workers": "title"}
    )

    assert cells(text, "two-workers")[3:5] == ["67", "15,000"]
    assert "do 1.79 × the work of one" in text


def test_a_loop_does_rounds() -> None:
    core = min(os.sched_getaffinity(0))

    assert looped((core, core), seconds=0.005) >= 2
