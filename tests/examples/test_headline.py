"""The figures that are computed from the answers of a headline run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from examples.headline import report
from examples.headline.ask import Answers
from examples.headline.result import Bootstrap, Way, alone, compare, fixed_ways, majority, vote_ways
from examples.tiny_reasoner.task import held_out_set


@pytest.mark.parametrize(
    ("texts", "votes", "expected"),
    [
        (["7", "3", "7"], 3, 1.0),
        (["3", "7", "7"], 1, 0.0),
        (["3", "7"], 2, 0.5),
        (["3", None, "7", None], 4, 0.5),
        ([None, None], 2, 0.0),
        (["1", "2", "7"], 3, 1 / 3),
    ],
)
def test_majority(texts: list[str | None], votes: int, expected: float) -> None:
    """The most frequent answer wins; ties are drawn by lot, and a missing answer is no vote."""
    assert majority(texts, votes, "7") == pytest.approx(expected)


def way(name: str, right: list[float], tokens: float) -> Way:
    return Way(name, np.array(right * 25), np.full(len(right) * 25, tokens))


def result() -> dict[str, Any]:
    """A small result: of four questions, long solves all, medium three, short two, direct one."""
    fixed = [
        way("direct", [1, 0, 0, 0], 2),
        way("short", [1, 1, 0, 0], 10),
        way("medium", [1, 1, 1, 0], 20),
        way("long", [1, 1, 1, 1], 40),
    ]
    boot = Bootstrap(100)
    adaptive = Way("adaptive", np.array([1.0, 1, 1, 0] * 25), np.array([2.0, 10, 20, 2] * 25))
    votes = [[tier] for tier in fixed]
    return {
        "command": "python",
        "engine": "its embedded engine",
        "head": "h",
        "temperature": 0.7,
        "questions": 4,
        "calibration": 2,
        "seed": 1,
        "samples": {"direct": 1},
        "fixed": [alone(tier, boot) for tier in fixed],
        "budgets": [compare({"budget": 8.5, "times_direct": 4.25}, adaptive, fixed, votes, boot)],
    }


def test_all_columns_stand_at_the_tokens_used() -> None:
    """All columns are compared at the 8.5 tokens that adaptive used."""
    [row] = result()["budgets"]

    assert row["adaptive"]["accuracy"] == 0.75
    assert {row[name]["tokens"] for name in ("adaptive", "best_mix", "self_consistency", "oracle")} == {8.5}
    # from direct (0.25 at 2 tokens) to short (0.5 at 10), at 8.5: 0.25 + 0.25 × 6.5 / 8
    assert row["best_mix"]["accuracy"] == pytest.approx(0.4531, abs=1e-3)
    assert row["self_consistency"]["accuracy"] == 0.25
    # 8.5 * 4 = 34 tokens: 2 + 10 + 20 on the solvable, and nothing left for the last
    assert row["oracle"]["accuracy"] == pytest.approx(0.75)
    assert row["over_mix"]["gain"] == pytest.approx(0.75 - row["best_mix"]["accuracy"], abs=1e-4)
    assert row["relative_gain"]["gain"] == pytest.approx(2.0)


def test_the_page_has_a_row_for_each_budget() -> None:
    """The Markdown has the figures and no placeholder."""
    text = report.page(result())

    assert "| 8.5 tokens (4.2×) | 8.5 | 75.0 %" in text
    assert "| short | 50.0 %" in text
    assert "{" not in text


def test_answers_are_graded_against_their_own_question() -> None:
    """For a fixed tier the first sample counts; for votes all of them do, and so do their tokens."""
    questions = held_out_set(2)
    right, wrong = questions[0].answer, str(int(questions[1].answer) + 1)
    given = {
        "direct": Answers(
            [[right, wrong], [wrong, questions[1].answer]], np.array([3.0, 5.0]), ["direct"] * 2
        )
    }

    [fixed] = fixed_ways(given, questions)
    [[one, two]] = vote_ways(given, questions)

    assert fixed.right.tolist() == one.right.tolist() == [1.0, 0.0]
    assert two.tokens.tolist() == [6.0, 10.0]
    assert two.right.tolist() == [0.5, 0.5]
