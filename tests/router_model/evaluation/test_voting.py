"""Self-consistency: who wins a vote, and how many tokens it takes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_model.evaluation import cost_quality, voting
from router_model.training.outcomes import OutcomeTable


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
    assert voting.majority(answers, [answer == "7" for answer in answers], count) == pytest.approx(expected)


@given(st.lists(st.sampled_from("789"), min_size=2, max_size=6))
def test_one_or_two_votes_are_a_single_sample(answers: list[str]) -> None:
    """One vote, or two with random ties, are as good as a single sample."""
    right = [answer == "7" for answer in answers]
    single = sum(right) / len(right)

    assert voting.majority(answers, right, 1) == pytest.approx(single)
    assert voting.majority(answers, right, 2) == pytest.approx(single)


@given(st.lists(st.sampled_from("78"), min_size=3, max_size=6))
def test_three_votes_of_two_answers(answers: list[str]) -> None:
    """With two possible answers, three votes win when two are right: counted over all triples."""
    right = [answer == "7" for answer in answers]
    triples = list(itertools.combinations(right, 3))

    assert voting.majority(answers, right, 3) == pytest.approx(
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


def test_contest(tmp_path: Path) -> None:
    """Three short votes for 30 tokens are always right; half mixing at 30 tokens is 5 in 6."""
    ids = table(tmp_path / "t.jsonl", answers=True)
    cast = voting.ballots(tmp_path / "t.jsonl", ids)
    correct, tokens = np.tile([2 / 3, 1.0], (60, 1)), np.tile([10.0, 50.0], (60, 1))
    mixing = cost_quality.fixed(correct, tokens, np.arange(60))

    (found,) = voting.contests(cast, [mixing], [mixing], draws=20, seed=0)

    assert (found.tier, found.votes, found.tokens) == ("short", 3, 30)
    assert found.voting[0] == pytest.approx(1 / 3)
    assert found.routing[0] == pytest.approx(1 / 6)
    assert found.mix[0] == pytest.approx(1 / 6)


def test_table_without_single_answers(tmp_path: Path) -> None:
    """A table that only holds means has no ballots."""
    ids = table(tmp_path / "t.jsonl", answers=False)

    assert voting.ballots(tmp_path / "t.jsonl", ids) == []


def test_bounds() -> None:
    """Without the answers, two right of four win, and one right wins one time in four."""
    found = voting.upper_bounds(
        OutcomeTable(
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
    )

    four = found[-1]

    assert (four.tier, four.votes) == ("short", 4)
    assert four.correct.tolist() == [1.0, 0.25]
    assert four.tokens.tolist() == [40, 80]


def test_routing_is_measured_where_voting_is(tmp_path: Path) -> None:
    """A router tested on some prompts is compared with votes on the same prompts."""
    ids = table(tmp_path / "t.jsonl", answers=True)
    cast = [
        one._replace(correct=np.where(np.arange(60) < 30, one.correct, 0.0))
        for one in voting.ballots(tmp_path / "t.jsonl", ids)
    ]
    half = cost_quality.fixed(np.tile([2 / 3, 1.0], (30, 1)), np.tile([10.0, 50.0], (30, 1)), np.arange(30))

    (found,) = voting.contests(cast, [half], [half], draws=20, seed=0)

    assert found.voting[0] == pytest.approx(1 / 3)
