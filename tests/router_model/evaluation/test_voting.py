"""Self-consistency: who wins a vote, and how many tokens it takes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import voting
from router_model.training.outcomes import OutcomeTable


def cast(answers: list[str]) -> voting.Votes:
    """Votes for these answers; 7 is right."""
    return voting.votes_of(answers, [answer == "7" for answer in answers])


@pytest.mark.parametrize(
    ("answers", "count", "expected"),
    [
        (["7", "7", "8"], 3, 1.0),
        (["8", "8", "7"], 3, 0.0),
        (["7", "8", "9"], 3, 1 / 3),
        (["7", "", ""], 3, 1.0),
        (["", "", ""], 3, 0.0),
        (["7", "7", "8", "8"], 4, 0.5),
        (["7", "8"], 1, 0.5),
    ],
)
def test_majority(answers: list[str], count: int, expected: float) -> None:
    """The most frequent answer wins, ties are random, an empty answer is no vote. The right answer is 7."""
    assert voting.majority(cast(answers), count) == pytest.approx(expected)


@given(st.lists(st.sampled_from("789"), min_size=2, max_size=6))
def test_one_or_two_votes_are_a_single_sample(answers: list[str]) -> None:
    """One vote, or two with random ties, are as good as a single sample."""
    right = [answer == "7" for answer in answers]
    single = sum(right) / len(right)

    assert voting.majority(cast(answers), 1) == pytest.approx(single)
    assert voting.majority(cast(answers), 2) == pytest.approx(single)


@given(st.lists(st.sampled_from("78"), min_size=3, max_size=6))
def test_three_votes_of_two_answers(answers: list[str]) -> None:
    """With two possible answers, three votes win when two are right: counted over all triples."""
    right = [answer == "7" for answer in answers]
    triples = list(itertools.combinations(right, 3))

    assert voting.majority(cast(answers), 3) == pytest.approx(
        sum(sum(t) >= 2 for t in triples) / len(triples)
    )


def table(path: Path, *, answers: bool) -> list[str]:
    """Sixty questions; the short tier is right two times in three, the long one always."""
    rows = []
    for at in range(60):
        cells = {
            "short": {"correct": 2 / 3, "tokens": 10.0, "n": 3},
            "long": {"correct": 1.0, "tokens": 50.0, "n": 3},
        }
        if answers:
            cells["short"] |= {"answers": ["1", "1", "2"], "right": [1, 1, 0]}
            cells["long"] |= {"answers": ["1", "1", "1"], "right": [1, 1, 1]}
        rows.append({"id": f"q{at}", "prompt": f"question {at}", "tiers": cells})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [row["id"] for row in rows]


def test_leads() -> None:
    """The posterior that a leader leads: 3 in 4 after one vote, 7 in 8 after two, a coin toss in a tie."""
    found = [voting.leads(first, second) for first, second in ((1, 0), (2, 0), (3, 0), (1, 1))]

    assert found == [0.75, 0.875, 0.9375, 0.5]


def test_voting_stops_when_it_is_settled() -> None:
    """Of three votes 7, 7, 8, one order in three is settled after two; the majority stays the same."""
    assert voting.adaptive(cast(["7", "7", "8"]), 3, 1.0) == (1.0, pytest.approx(2 + 2 / 3))


def test_voting_stops_when_it_is_sure() -> None:
    """At 85 % two equal answers are enough. Of 7, 7, 8, 8 a third of the orders begin with a pair."""
    right, asked = voting.adaptive(cast(["7", "7", "8", "8"]), 4, 0.85)

    assert right == pytest.approx(1 / 2)
    assert asked == pytest.approx(1 / 3 * 2 + 2 / 3 * 4)


@given(st.lists(st.sampled_from("78 "), min_size=2, max_size=4), st.integers(2, 4))
def test_stopping_when_nothing_can_change_keeps_the_majority(answers: list[str], votes: int) -> None:
    """Without any risk adaptive consistency is as right as self-consistency and never asks more often."""
    samples, votes = cast([answer.strip() for answer in answers]), min(votes, len(answers))

    right, asked = voting.adaptive(samples, votes, 1.0)

    assert right == pytest.approx(voting.majority(samples, votes))
    assert 1 <= asked <= votes


def test_ballots(tmp_path: Path) -> None:
    """Three short votes cost 30 tokens and are always right; asking until it is settled costs 26.7."""
    ids = table(tmp_path / "t.jsonl", answers=True)

    fixed, early = voting.ballots(tmp_path / "t.jsonl", ids)

    three = {option.name: option for option in fixed}["short × 3"]
    settled = {option.name: option for option in early}["short × 3, until 100% sure"]
    assert three.correct.tolist() == settled.correct.tolist() == [1.0] * 60
    assert three.tokens.tolist() == [30.0] * 60
    assert settled.tokens == pytest.approx(80 / 3)


def test_table_without_single_answers(tmp_path: Path) -> None:
    """A table that only holds means has no ballots."""
    ids = table(tmp_path / "t.jsonl", answers=False)

    assert voting.ballots(tmp_path / "t.jsonl", ids) == ([], [])


def test_bounds() -> None:
    """Without the answers, two right of four win, and one right wins one time in four."""
    known = OutcomeTable(
        name="t",
        ids=("a", "b"),
        datasets=("t", "t"),
        prompts=("a", "b"),
        tiers=("short",),
        correct=np.array([[0.5], [0.25]]),
        tokens=np.array([[10.0], [20.0]]),
        samples=np.array([[4], [4]]),
        digest="",
    )

    four = voting.upper_bounds(known)[0][-1]

    assert four.name == "short × 4"
    assert four.correct.tolist() == [1.0, 0.25]
    assert four.tokens.tolist() == [40, 80]
