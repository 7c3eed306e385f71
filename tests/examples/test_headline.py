"""The figures that are computed from the answers of a headline run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.demo.score import mix_at
from examples.headline import report
from examples.headline.ask import Answers
from examples.headline.experiment import budgets, samples
from examples.headline.result import Bootstrap, Way, alone, compare, fixed_ways, majority, over, vote_ways
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


FIXED = [
    way("direct", [1, 0, 0, 0], 2),
    way("12_tokens", [1, 1, 0, 0], 10),
    way("short", [1, 1, 1, 0], 20),
    way("long", [1, 1, 1, 1], 40),
]
BOOT = Bootstrap(100)
PLANNED = {"budget": 8.5, "times_direct": 4.25}


def result() -> dict[str, Any]:
    """A small result: of four questions, long solves all, short three, 12 tokens two, direct one."""
    adaptive = Way("adaptive", np.array([1.0, 1, 1, 0] * 25), np.array([2.0, 10, 20, 2] * 25))
    coarse = way("adaptive", [1, 0, 1, 0], 11)
    rows = {"price": 1.0, "thinking": {"0": 0.5, "24": 0.5}}

    def row(run: Way) -> dict[str, Any]:
        extra = {"over_coarsest": over(run, [FIXED[0], coarse, FIXED[-1]], BOOT)}
        return compare(PLANNED, run, FIXED, FIXED, BOOT) | extra | rows

    return {
        "command": "python",
        "engine": "its embedded engine",
        "head": "h",
        "temperature": 0.7,
        "questions": 4,
        "calibration": 2,
        "seed": 1,
        "samples": {"0": 16, "24": 1},
        "fixed": [
            alone(fixed, BOOT) | {"thinking": budget}
            for fixed, budget in zip(FIXED, (0, 12, 24, 320), strict=True)
        ],
        "rungs": 9,
        "budgets": [row(adaptive)],
        "coarser": {"4": [row(coarse)]},
    }


def test_all_columns_stand_at_the_tokens_used() -> None:
    """All columns are compared at the 8.5 tokens that adaptive used."""
    [row] = result()["budgets"]

    assert row["adaptive"]["accuracy"] == 0.75
    assert {row[name]["tokens"] for name in ("adaptive", "best_mix", "self_consistency", "oracle")} == {8.5}
    # from direct (0.25 at 2 tokens) to 12 tokens (0.5 at 10), at 8.5: 0.25 + 0.25 × 6.5 / 8
    assert row["best_mix"]["accuracy"] == pytest.approx(0.4531, abs=1e-3)
    assert row["self_consistency"]["accuracy"] == row["best_mix"]["accuracy"]
    # from direct to the coarse run (0.5 at 11 tokens), at 8.5: 0.25 + 0.25 × 6.5 / 9
    assert row["over_coarsest"]["gain"] == pytest.approx(0.75 - 0.4306, abs=1e-3)
    # 8.5 * 4 = 34 tokens: 2 + 10 + 20 on the solvable, and nothing left for the last
    assert row["oracle"]["accuracy"] == pytest.approx(0.75)
    assert row["over_mix"]["gain"] == pytest.approx(0.75 - row["best_mix"]["accuracy"], abs=1e-4)
    assert row["relative_gain"]["gain"] == pytest.approx(2.0)


def test_the_page_has_a_row_for_each_budget() -> None:
    """The Markdown has the figures and no placeholder."""
    text = report.page(result())

    assert "| budget | 4 rungs | 9 rungs | 9 − 4 rungs, points |" in text
    assert "| 8.5 tokens (4.2×) | 50.0 % (40.0–59.0), 11.0 | 75.0 % " in text
    assert "| 8.5 tokens (4.2×) | 8.5 | 75.0 %" in text
    assert "| 12 | 50.0 %" in text
    assert "| 24 (short) | 75.0 %" in text
    assert "{" not in text


def test_answers_are_graded_against_their_own_question() -> None:
    """For a fixed tier the first sample counts; for votes all of them do, and so do their tokens."""
    questions = held_out_set(2)
    right, wrong = questions[0].answer, str(int(questions[1].answer) + 1)
    asked = {
        0: Answers([[right, wrong], [wrong, questions[1].answer]], np.array([3.0, 5.0]), [0, 0]),
        12: Answers([[right], [wrong]], np.array([15.0, 15.0]), [12, 12]),
    }

    fixed = fixed_ways(asked, questions)
    one, two = vote_ways(asked, questions)[0]

    assert [way.name for way in fixed.values()] == ["direct", "12_tokens"]
    assert fixed[0].right.tolist() == one.right.tolist() == [1.0, 0.0]
    assert two.tokens.tolist() == [6.0, 10.0]
    assert two.right.tolist() == [0.5, 0.5]


points = st.lists(st.tuples(st.floats(1, 1_000), st.floats(0, 1)), min_size=1, max_size=5)


@given(points, st.floats(1, 2_000))
def test_the_mix_of_resamples_is_the_mix_of_the_demo(found: list[tuple[float, float]], budget: float) -> None:
    """Computed for all resamples at once, the best mix is that of `mix_at`."""
    boot = Bootstrap(1)
    ways = [Way("", np.array([right]), np.array([tokens])) for tokens, right in found]
    tokens, rights = zip(*found, strict=True)

    mixed = boot.mix(ways, np.full(len(boot.means(np.ones(1))), budget))

    assert mixed == pytest.approx(mix_at(rights, tokens, budget))


def test_votes_cost_about_as_much_as_a_long_thought() -> None:
    """Cheap budgets are asked several times, and those of a long thought once."""
    assert [samples(thinking) for thinking in (0, 6, 12, 24, 96, 320)] == [16, 9, 6, 3, 1, 1]


def test_budgets_are_shares_of_the_way_to_the_longest_tier() -> None:
    """They rise, and each says how many times the cheapest tier's tokens it is."""
    rows = budgets(4.0, 104.0)

    assert [row["budget"] for row in rows] == [8.0, 14.0, 29.0, 54.0, 79.0]
    assert all(row["times_direct"] == row["budget"] / 4 for row in rows)
