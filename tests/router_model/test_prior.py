"""The prior for models that were never measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.allocation import best_tier
from router_model.encoders.ngrams import ngram_features
from router_model.head import load_named
from router_model.predictor import TierLength
from router_model.prior import Prior, PriorLadder, Readings

FAMILY = (
    TierLength("direct", 0, 4096),
    TierLength("short", 1024, 4096),
    TierLength("medium", 4096, 4096),
    TierLength("long", 16384, 8192),
)
PRIOR = load_named("general").prior

budgets = st.lists(st.integers(1, 100_000), min_size=1, max_size=16, unique=True).map(sorted)
readings = st.builds(
    lambda thought, answer, right: Readings(np.float64(thought), np.float64(answer), np.float64(right)),
    st.floats(2, 12),
    st.floats(1, 9),
    st.floats(0.01, 0.99),
)


def ladder(thinking: list[int], *, direct: bool = True) -> PriorLadder:
    tiers = [TierLength(str(budget), budget, 4096) for budget in thinking]
    return PriorLadder.of(PRIOR, [*([TierLength("direct", 0, 4096)] if direct else []), *tiers])


@given(budgets, readings)
def test_more_thinking_never_loses_and_never_saves(thinking: list[int], seen: Readings) -> None:
    """Among thinking budgets, P(right) and tokens rise; all estimates are within their bounds."""
    correct, tokens = ladder(thinking).outcomes(seen)

    assert (np.diff(correct[1:]) >= -1e-9).all()
    assert (np.diff(tokens[1:]) >= -1e-9).all()
    assert ((correct >= 0) & (correct <= 1)).all()
    assert (tokens > 0).all()
    assert (tokens <= [4096, *(budget + 4096 for budget in thinking)]).all()


@given(budgets, st.lists(st.floats(5, 8.5), min_size=2, max_size=8), st.floats(1e-4, 10))
def test_price_alone_decides_how_long_to_think(
    thinking: list[int], thoughts: list[float], price: float
) -> None:
    """Without `direct` to fall back on, all prompts get the same budget, however long they would think."""
    rungs = ladder(thinking, direct=False)
    chosen = set()
    for thought in thoughts:
        correct, tokens = rungs.outcomes(Readings(np.float64(thought), np.float64(5.5), np.float64(0.9)))
        if correct[0] <= 0 or correct[-1] >= 1:  # cut off at the bounds of a probability
            continue
        tied = correct - price * tokens / 1000
        chosen.add((int(np.argmax(tied)), float(np.sort(tied)[-1] - np.sort(tied)[-2:][0]) < 1e-9))

    assert len({index for index, tie in chosen if not tie}) <= 1


@given(readings)
def test_short_budget_is_worse_than_none(seen: Readings) -> None:
    """A thought that is certainly cut short gains nothing over answering at once."""
    correct, _ = ladder([8]).outcomes(seen)

    if seen.thought > 6 and seen.right > PRIOR.cut:
        assert correct[1] < correct[0]


def test_tokens_follow_the_budget_until_the_thought_ends() -> None:
    """Far below the median, a budget is used up; far above it, more budget changes nothing."""
    seen = Readings(np.log(2000.0), np.log(200.0), np.float64(0.8))
    _, tokens = ladder([20, 100_000, 200_000]).outcomes(seen)

    assert tokens[1] == pytest.approx(20 + PRIOR.forced * 200, rel=0.02)
    assert tokens[3] == pytest.approx(tokens[2], rel=0.02)
    # the mean of a log-logistic law is m (π/k) / sin(π/k)
    angle = np.pi / PRIOR.steepness
    assert tokens[3] - PRIOR.forced * 200 == pytest.approx(2000 * angle / np.sin(angle), rel=0.05)


def test_batch_equals_single_prompts() -> None:
    """A price table and a request see the same estimates."""
    texts = ["hi", "What is 17 * 23?", "Prove that the sum of two odd squares is never a square." * 9]
    counts = np.stack([ngram_features(text).dense for text in texts])
    rungs = PriorLadder.of(PRIOR, FAMILY)
    correct, tokens = rungs.outcomes(PRIOR.read(counts))

    for row, each in enumerate(counts):
        prediction = rungs.predict(each)
        assert prediction.prior
        np.testing.assert_allclose(prediction.correct, correct[row])
        np.testing.assert_allclose(prediction.tokens, tokens[row])


def test_without_counts_the_average_prompt_decides() -> None:
    """An embedding that did not arrive leaves no counts; the cheapest tier is then best, not the longest."""
    prediction = PriorLadder.of(PRIOR, FAMILY).predict(None)

    assert best_tier(prediction.correct, prediction.tokens, 0.02) == 0


def test_record_restores_the_prior() -> None:
    """An artefact keeps everything."""
    again = Prior.of(PRIOR.record).record
    assert again.keys() == PRIOR.record.keys()
    assert all(np.array_equal(again[name], PRIOR.record[name]) for name in again)


def test_models_without_thinking() -> None:
    """A ladder without a thinking tier has the estimates of direct answers."""
    correct, tokens = PriorLadder.of(PRIOR, FAMILY[:1]).outcomes(PRIOR.average)

    assert correct.shape == tokens.shape == (1,)
    assert 0 < correct[0] < 1
