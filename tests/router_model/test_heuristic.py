"""The heuristic is a stand-in, so its ranges are tested and not its accuracy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.heuristic import HeuristicBaseline, difficulty
from router_model.predictor import Predictor, TierLength, ranks

prompts = (
    st.text() | st.text("prove sum x=*∑", max_size=500) | st.sampled_from(["a" * 100_000, "= " * 50_000])
)
tiers = st.lists(
    st.builds(TierLength, st.text(max_size=3), st.integers(0, 50_000), st.integers(1, 9_000)),
    min_size=1,
    max_size=6,
)


@given(prompts)
def test_difficulty_is_a_score(prompt: str) -> None:
    """Any prompt has a score strictly between 0 and 1."""
    assert 0 < difficulty(prompt) < 1


@pytest.mark.parametrize(
    "prompt",
    ["", "\0", "\ud800", "İ" * 100_000, "😀" * 100_000, "∑ prove " * 20_000, " " * 100_000, "hi " * 40_000],
)
def test_difficulty_of_odd_prompts(prompt: str) -> None:
    """Empty, very long and broken prompts stay in the range too."""
    assert 0 < difficulty(prompt) < 1


def test_end_of_a_long_prompt_does_not_count() -> None:
    """Only the first 20,000 characters are read, which bounds the time."""
    start = "x" * 20_000

    assert difficulty(start) == difficulty(start + " prove that ∑ = ∫" * 5_000)


@pytest.mark.parametrize(
    ("easier", "harder"),
    [
        ("hello", "prove the theorem"),
        ("count", "count " * 200),
        ("what is the word", "what is the sum"),
        ("x y", "x = y"),
        ("hello, please compute it", "please, please compute it"),
    ],
)
def test_order_of_difficulty(easier: str, harder: str) -> None:
    """Length, hard words and symbols raise the score, easy words lower it."""
    assert difficulty(easier) < difficulty(harder)


@given(prompts, tiers)
def test_prediction(prompt: str, lengths: list[TierLength]) -> None:
    """Estimates are finite, probabilities lie in [0, 1], and longer thinking never lowers P(right)."""
    found = HeuristicBaseline().predict(prompt, "m", lengths)

    assert found.difficulty == difficulty(prompt)
    assert len(found.correct) == len(found.tokens) == len(lengths)
    assert all(0 <= chance <= 1 for chance in found.correct)
    assert list(found.correct) == sorted(found.correct)
    assert all(
        math.isfinite(tokens) and 0 < tokens <= tier.thinking + tier.answer
        for tokens, tier in zip(found.tokens, lengths, strict=True)
    )


@given(st.text(max_size=50), tiers)
def test_prediction_is_pure(prompt: str, lengths: list[TierLength]) -> None:
    """The same prompt gets the same estimates, on any model."""
    head: Predictor = HeuristicBaseline()

    assert head.predict(prompt, "a", lengths) == head.predict(prompt, "b", lengths)


def test_rungs_do_not_change_the_tiers() -> None:
    """Named tiers have the same estimates with rungs between them, which lie between those of the tiers."""
    named = [TierLength("direct", 0, 50), TierLength("short", 100, 50), TierLength("long", 600, 50)]
    between = [TierLength(None, 40, 50), TierLength(None, 300, 50)]
    rungs = sorted(named + between, key=lambda tier: tier.thinking)
    head = HeuristicBaseline()
    few, many = (head.predict("What is the sum of 3 and 4?", "m", asked) for asked in (named, rungs))

    assert many.correct[::2] == few.correct
    assert many.tokens[::2] == few.tokens
    assert list(many.correct) == sorted(set(many.correct))


@given(st.lists(st.integers(0, 50_000), min_size=2, max_size=9, unique=True).map(sorted), st.data())
def test_ranks(thinking: list[int], data: st.DataObject) -> None:
    """Named tiers rank 0, 1, 2, …, and the ranks of all rungs never fall with their thinking tokens."""
    inner = data.draw(st.sets(st.integers(1, len(thinking) - 1)))
    names = {0, len(thinking) - 1} | inner
    asked = [TierLength(str(at) if at in names else None, n, 50) for at, n in enumerate(thinking)]
    found = ranks(asked)

    assert [found[at] for at in sorted(names)] == list(range(len(names)))
    assert list(found) == sorted(found)
