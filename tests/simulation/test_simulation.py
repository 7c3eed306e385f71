"""The simulator's limiter holds at any price, and runs are repeatable."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from gateway.budget.pacing import PaceSettings
from gateway.cli.main import cli
from gateway.cli.simulate import EXAMPLE
from gateway.simulation.controllers import Fixed, Paced, RawDual
from gateway.simulation.experiment import Hindsight, World, loaded, score_run, trailing, world
from gateway.simulation.limiter import REFUSED, Limiter
from gateway.simulation.replay import LOST, replay
from gateway.simulation.traffic import SCENARIOS, clamps, draw_trace
from router_model.allocation import PriceTable
from router_model.evaluation.methods import Estimates
from router_model.training.outcomes import OutcomeTable

TIERS = ("direct", "short", "long")


def table(prompts: int = 60) -> OutcomeTable:
    """Prompts of every difficulty: harder ones need more thinking and take more tokens."""
    hardness = np.linspace(0.05, 0.95, prompts)[:, None]
    return OutcomeTable(
        name="made up",
        ids=tuple(f"p{k}" for k in range(prompts)),
        datasets=("made up",) * prompts,
        prompts=tuple(f"question {k}" for k in range(prompts)),
        tiers=TIERS,
        correct=1 - hardness ** np.array([[0.5, 1.0, 3.0]]),
        tokens=np.array([[5.0, 40.0, 100.0]]) * (0.5 + hardness),
        samples=np.ones((prompts, 3), np.int64),
        digest="",
    )


def made(share: float = 0.6, *, strict: bool = True) -> World:
    """A world whose estimates are right."""
    outcomes = table()
    estimates = Estimates(outcomes.correct, outcomes.tokens)
    return world(outcomes, estimates, clamps(outcomes), share=share, strict=strict)


def paced(one: World) -> Paced:
    """Our controller."""
    return Paced(0.0, limited=True, pacing=PaceSettings(60.0, float(one.reserves.max())), table=one.prices)


def windows_hold(limited: Limiter, asks: list[tuple[float, int, float]]) -> None:
    """Reserve and settle at random; the most that is ever held stays within the cap, at every instant."""
    now, amounts, flights, settled = 0.0, (5.0, 50.0, 200.0), list[tuple[float, float]](), []
    for wait, wanted, share in asks:
        now += wait
        granted = limited.reserve(now, wanted, amounts, enforced=True)
        if granted != REFUSED:
            flights.append((amounts[granted], amounts[granted] * share))
        if len(flights) > 3 or wait > 5:
            reserved, used = flights.pop(0) if flights else (0.0, 0.0)
            limited.settle(now, reserved, used, used)
            settled.append((now, used))
        exact = sum(used for at, used in settled if at > now - 60)
        assert exact <= limited.settled + 1e-6
        assert exact + sum(reserved for reserved, _ in flights) <= limited.cap + 1e-6
    assert limited.peak <= limited.cap + 1e-6


@settings(max_examples=50)
@given(
    st.floats(10, 2000),
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 2), st.floats(0, 1)), min_size=1, max_size=60),
)
def test_limiter_never_over_the_cap(cap: float, asks: list[tuple[float, int, float]]) -> None:
    """Settled and reserved tokens never exceed the cap, in the exact window as in the limiter's buckets."""
    windows_hold(Limiter(60.0, cap), asks)


def test_limiter_steps_down_and_refuses() -> None:
    """The highest tier that fits at or below the wanted one is granted, or none."""
    limiter = Limiter(60.0, 100.0)

    assert [limiter.reserve(0, 2, (10, 50, 90), enforced=True) for _ in range(3)] == [2, 0, REFUSED]
    assert (limiter.arrivals, limiter.limited, limiter.reserved) == (3, 2, 100)


def test_tokens_count_for_a_window_and_at_most_a_bucket_more() -> None:
    """In a window of a minute, a settlement at 0.5 s still counts at 60.9 s and no longer at 61 s."""
    limiter = Limiter(60.0, 100.0)
    limiter.settle(0.5, 0.0, 70.0, 70.0)

    assert [limiter.reading(now).settled for now in (0.5, 60.9, 61.0)] == [70, 70, 0]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_no_controller_exceeds_the_cap_behind_the_limiter(scenario) -> None:
    """With strict reservations no limited controller is over the cap for a second, whatever happens."""
    one = made(share=0.3)
    trace = draw_trace(scenario, one.table, seed=1)
    trace = replace(
        trace, **{name: getattr(trace, name)[:6000] for name in ("at", "row", "correct", "tokens")}
    )
    for controller in (paced(one), Fixed(0.0, limited=True), RawDual(1.0, limited=True, budget=20)):
        run = replay(trace, one.predictions, one.reserves, controller, Limiter(60.0, one.cap))

        assert run.window.peak <= one.cap
        assert score_run(one, trace, run, 1.0, 1.0).seconds_over_cap == 0


def test_pacing_beats_the_limiter_alone() -> None:
    """At a steady load the price keeps the window full, the limiter idle, and answers right more often."""
    one = made()
    trace = draw_trace(SCENARIOS[0], one.table, seed=2)
    ours, blind = (
        score_run(
            one, trace, replay(trace, one.predictions, one.reserves, c, Limiter(60.0, one.cap)), 1.0, 1.0
        )
        for c in (paced(one), Fixed(0.0, limited=True))
    )

    assert ours.utilisation > 0.85
    assert ours.limiter_share < 0.05 < blind.limiter_share
    assert ours.accuracy > blind.accuracy


def test_requests_of_a_dead_gateway_are_lost_and_their_tokens_kept() -> None:
    """Every request is answered, refused or lost, and every granted one is settled exactly once."""
    one = made()
    trace = draw_trace(SCENARIOS[-1], one.table, seed=3)
    run = replay(trace, one.predictions, one.reserves, paced(one), Limiter(60.0, one.cap))

    assert (run.granted == LOST).sum() > 0
    assert len(run.used) == (run.granted != REFUSED).sum()
    assert run.window.reserved == pytest.approx(0)
    assert run.window.spent == pytest.approx(run.used.sum())


def test_hindsight_is_within_every_window() -> None:
    """The plan of hindsight fills no window beyond its share, and a larger share is never worse."""
    one = made()
    trace = draw_trace(SCENARIOS[1], one.table, seed=4)
    hindsight = Hindsight(one, trace)
    plans = [hindsight.plan(fraction) for fraction in (0.5, 0.8, 1.0)]

    assert [right for _, right in plans] == sorted(right for _, right in plans)
    assert len(plans[0][0]) == 20
    assert all(low >= high for low, high in zip(plans[0][0], plans[2][0], strict=True))


def test_trailing_sums_are_exact() -> None:
    """A window holds what was settled after its beginning and up to its end."""
    at, used = np.array([1.0, 2.0, 61.0]), np.array([10.0, 20.0, 40.0])

    assert trailing(at, used, np.array([1.0, 60.0, 61.0, 62.0])).tolist() == [10, 30, 60, 40]


def test_load_is_what_unpriced_traffic_would_fill() -> None:
    """At a tenth of the demand every second is under load, at twice the demand none is."""
    trace = draw_trace(SCENARIOS[0], table(), seed=5)

    assert len(loaded(made(share=0.1), trace)) == trace.duration - 60
    assert len(loaded(made(share=2.0), trace)) == 0


def test_traces_repeat_by_seed() -> None:
    """The same seed gives the same trace, another seed another."""
    first, same, other = (draw_trace(SCENARIOS[3], table(), seed) for seed in (1, 1, 2))

    assert np.array_equal(first.tokens, same.tokens)
    assert not np.array_equal(first.at[:100], other.at[:100])


def test_p95_reserves_less_than_strict() -> None:
    """A p95 reservation is at most the clamp, and enough for 95 of 100 answers of the table."""
    one, strict = made(strict=False), made()

    assert (one.reserves <= strict.reserves).all()
    assert one.reserves.sum() < strict.reserves.sum()
    assert isinstance(one.prices, PriceTable)


def test_command_refuses_what_it_does_not_know(tmp_path) -> None:
    """A scenario or reservation that does not exist, or a table that cannot be read, is an error of usage."""
    runner = CliRunner()
    for arguments in (
        ["--scenario", "flood"],
        ["--reserve", "none"],
        ["--table", str(tmp_path / "absent.jsonl")],
    ):
        result = runner.invoke(cli, ["simulate", *arguments])

        assert result.exit_code == 2


def test_command_prints_one_json_object(tmp_path) -> None:
    """`--json` gives the figures of every controller, and nothing else on standard output."""
    outcomes = table(200)
    lines = [
        json.dumps(
            {
                "prompt": f"{'hard ' * (row // 50)}question number {row}",
                "tiers": {
                    tier: {
                        "correct": round(float(outcomes.correct[row, k])),
                        "tokens": float(outcomes.tokens[row, k]),
                        "n": 1,
                    }
                    for k, tier in enumerate(TIERS)
                },
            }
        )
        for row in range(200)
    ]
    (tmp_path / "table.jsonl").write_text("\n".join(lines))
    arguments = ["--table", str(tmp_path / "table.jsonl"), "--scenario", "diurnal", "--json"]

    printed = json.loads(CliRunner().invoke(cli, ["simulate", *arguments]).stdout)

    assert set(printed) == {"diurnal"}
    assert printed["diurnal"]["thinkmeter"]["seconds_over_cap"] == 0
    assert set(printed["diurnal"]["thinkmeter"]) == {
        "seconds_over_cap",
        "utilisation",
        "accuracy",
        "hindsight_accuracy",
        "relaxed_accuracy",
        "limiter_share",
        "rejected_share",
    }
    hindsight = printed["diurnal"]["hindsight price"]
    assert hindsight["accuracy"] == hindsight["hindsight_accuracy"] <= hindsight["relaxed_accuracy"]


def test_default_table_is_there() -> None:
    """In a checkout the command finds its table without being told where."""
    assert EXAMPLE.is_file()
