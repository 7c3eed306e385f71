"""Off-policy estimates: exact where they can be, honest where the log says nothing, and unbiased."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_model.arrays import Floats, Ints
from router_model.evaluation.off_policy import (
    LEAST_EFFECTIVE,
    Logged,
    Weighing,
    chosen_alone,
    drawn_propensities,
    policy_difference,
    policy_estimate,
    student_quantile,
    support,
)

RUNGS = 3
METHODS: tuple[Weighing, ...] = ("snips", "dr")


def log_of(draw: np.random.Generator, rows: int, propensity: Floats, *, judged: float = 1.0) -> Logged:
    """A log whose P(right) rises with the rung, and a head that is wrong about it."""
    rung = (propensity.cumsum(axis=1) > draw.random((rows, 1))).argmax(axis=1)
    score = (draw.random(rows) < 0.3 + 0.2 * rung).astype(float)
    score[draw.random(rows) >= judged] = np.nan
    tokens = 100.0 * (1 + rung) + draw.normal(size=rows)
    model = np.tile([0.5, 0.5, 0.5], (rows, 1))
    return Logged(rung, propensity, score, tokens, model, 300 * model, np.arange(rows))


def even(rows: int) -> Floats:
    return np.full((rows, RUNGS), 1 / RUNGS)


def always(rung: int, rows: int) -> Floats:
    return chosen_alone(np.full(rows, rung), RUNGS)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_the_own_policy_is_worth_what_was_seen(seed: int) -> None:
    """With weights of 1, both estimates of the right answers are the plain mean."""
    draw = np.random.default_rng(seed)
    propensity = draw.dirichlet(np.ones(RUNGS), 300)
    log = log_of(draw, 300, propensity)

    found = policy_estimate(log, propensity, 0.02, method="snips")

    assert found.right.estimate == pytest.approx(log.score.mean())
    assert found.tokens.estimate == pytest.approx(log.tokens.mean())
    assert found.value.estimate == pytest.approx(log.score.mean() - 0.02 * log.tokens.mean() / 1000)
    assert found.right.low <= found.right.estimate <= found.right.high
    assert found.support == pytest.approx((300.0, 0.0, 0.0))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rung", range(RUNGS))
def test_finds_what_another_policy_is_worth(method: Weighing, rung: int) -> None:
    """However wrong the head is about the answers."""
    draw = np.random.default_rng(rung)
    log = log_of(draw, 20_000, even(20_000), judged=0.5)

    found = policy_estimate(log, always(rung, 20_000), 0.0, method=method)

    assert found.right.estimate == pytest.approx(0.3 + 0.2 * rung, abs=0.03)
    assert found.right.low < 0.3 + 0.2 * rung < found.right.high
    assert found.tokens.estimate == pytest.approx(100 * (1 + rung), rel=0.05)


def test_good_estimates_narrow_the_interval() -> None:
    """The doubly robust estimate uses the head, and knows nothing less where it is right."""
    log = log_of(np.random.default_rng(1), 3_000, even(3_000))
    expected = np.tile([100.0, 200.0, 300.0], (3_000, 1))
    told = log._replace(expected=expected)

    plain, helped = (policy_estimate(one, always(2, 3_000), 0.0).tokens for one in (log, told))

    assert helped.high - helped.low < 0.2 * (plain.high - plain.low)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_equal_policies_do_not_differ(seed: int) -> None:
    """The difference of a policy and itself is 0, with no doubt about it."""
    draw = np.random.default_rng(seed)
    log = log_of(draw, 400, even(400))
    policy = draw.dirichlet(np.ones(RUNGS), 400)

    for method in METHODS:
        found = policy_difference(log, policy, policy, 0.02, method=method)
        assert found.value == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_the_difference_has_a_sign(seed: int) -> None:
    """Exchanging the policies turns the difference and its interval round."""
    draw = np.random.default_rng(seed)
    log = log_of(draw, 500, even(500))
    one, other = draw.dirichlet(np.ones(RUNGS), (2, 500))

    there = policy_difference(log, one, other, 0.02).value
    back = policy_difference(log, other, one, 0.02).value

    assert there == pytest.approx((-back.estimate, -back.high, -back.low))


def test_a_log_that_never_tried_is_no_evidence() -> None:
    """A deterministic log shows another policy only where both choose alike."""
    rows = 1_000
    log = log_of(np.random.default_rng(2), rows, always(0, rows))
    alike = np.arange(rows) < 900
    policy = np.where(alike[:, None], always(0, rows), always(2, rows))

    found = policy_estimate(log, policy, 0.02)

    assert found.support.uncovered == pytest.approx(0.1)
    assert found.support.missing
    assert "10%" in found.support.missing
    assert math.isnan(found.value.low)
    assert math.isnan(found.value.high)


def test_few_judged_answers_are_no_evidence() -> None:
    """Below a number of effective answers no interval is given, and the message says how many there are."""
    log = log_of(np.random.default_rng(3), 200, even(200))

    found = support(log, always(1, 200))

    assert found.effective == pytest.approx(200 / RUNGS)
    assert found.effective < LEAST_EFFECTIVE
    assert found.missing is not None
    assert "67 judged answers" in found.missing


def test_without_scores_nothing_is_estimated() -> None:
    """No judged answer gives no number, and no error."""
    log = log_of(np.random.default_rng(4), 200, even(200), judged=0.0)

    for method in METHODS:
        found = policy_estimate(log, always(1, 200), 0.02, method=method)
        assert math.isnan(found.right.estimate)
        assert math.isnan(found.value.estimate)
        assert not math.isnan(found.tokens.estimate)
        assert found.support.missing


def test_rows_of_a_conversation_count_once() -> None:
    """Repeating every row of a conversation does not narrow the interval."""
    log = log_of(np.random.default_rng(5), 1_000, even(1_000))
    twice = Logged._make(np.concatenate((column, column)) for column in log)

    single = policy_estimate(log, always(1, 1_000), 0.02).right
    double = policy_estimate(twice, always(1, 2_000), 0.02).right

    assert double == pytest.approx(single)


@settings(max_examples=15)
@given(clip=st.floats(1.0, 4.0), seed=st.integers(0, 2**32 - 1))
def test_clipping_tells_its_bias(clip: float, seed: int) -> None:
    """The share that clipping takes away is exact, and bounds what it moves."""
    draw = np.random.default_rng(seed)
    rows = 400
    propensity = np.tile([0.5, 0.25, 0.25], (rows, 1))
    log = log_of(draw, rows, propensity)
    policy = always(1, rows)

    found = support(log, policy, clip)

    assert found.clipped == pytest.approx(1 - clip / 4)
    assert found.effective >= support(log, policy).effective - 1e-6


# --- propensities of a log ------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    epsilon=st.floats(0.001, 0.5),
    low=st.integers(0, 3),
    count=st.integers(1, 4),
    data=st.data(),
)
def test_propensities_follow_from_the_served_one(
    epsilon: float, low: int, count: int, data: st.DataObject
) -> None:
    """Whichever rung was drawn, the same probabilities are found."""
    rungs = 8
    inside = np.arange(low, low + count)
    chosen = data.draw(st.sampled_from(inside.tolist()))
    truth = np.zeros(rungs)
    truth[inside] = epsilon / count
    truth[chosen] += 1 - epsilon
    eligible = np.zeros((count, rungs))
    eligible[:, inside] = 1

    found = drawn_propensities(inside, truth[inside], np.full(count, chosen), eligible)

    assert found == pytest.approx(np.tile(truth, (count, 1)))


def test_a_rung_outside_the_bounds_had_no_alternative() -> None:
    """Such as one that a budget cut."""
    eligible = np.array([[0.0, 1.0, 1.0]])
    zero: Ints = np.array([0])

    found = drawn_propensities(zero, np.array([0.9]), np.array([1]), eligible)

    assert found.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize(("freedom", "exact"), [(3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423)])
def test_student(freedom: float, exact: float) -> None:
    """Against the tables."""
    assert student_quantile(0.975, freedom) == pytest.approx(exact, abs=0.02 if freedom < 5 else 0.001)
