"""From answers and grades to the outcome table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from gateway.evidence.measuring.outcomes import current_grades, outcome_rows, outcomes_of_run
from router_model.training.outcomes import read_table
from tests.evidence.measuring.making import RUNGS, answer, grade, prompts


def test_what_counts() -> None:
    """An answer counts if it is graded and its tokens are known; others are missing, not wrong."""
    answers = [
        answer("p0"),
        answer("p0", sample=1),
        answer("p0", "long", tokens=None),
        answer("p1"),
        answer("gone"),
        answer("p0", sample=2),
    ]
    grades = [
        grade("p0"),
        grade("p0", sample=1, score=0.5),
        grade("p0", "long"),
        grade("p1", score=None),
        grade("gone"),
        grade("p0", sample=2),
    ]

    outcomes = outcomes_of_run(
        prompts(2), RUNGS, 2, {each.key: each for each in answers}, {each.key: each for each in grades}
    )

    assert outcomes.correct[0, 0].tolist() == [1.0, 0.5]
    assert np.isnan(outcomes.correct).sum() == 6
    assert np.isnan(outcomes.tokens).sum() == 6
    assert len(outcomes.complete.prompts) == 0


def test_table_is_one_that_calibrate_reads(tmp_path: Path) -> None:
    """The table keeps means, numbers of samples, and the thinking tokens of each rung."""
    asked = prompts(3, dataset="sums", category="easy")
    answers = [answer(p.id, r.name, s, tokens=10 * s + 5) for p in asked for r in RUNGS for s in range(2)]
    grades = [grade(*each.key, score=float(each.sample)) for each in answers if each.prompt != "p2"]
    outcomes = outcomes_of_run(
        asked, RUNGS, 2, {each.key: each for each in answers}, {each.key: each for each in grades}
    )
    path = tmp_path / "tiny.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, outcome_rows(outcomes))))

    table = read_table(path)

    assert table.prompts == ("question 0", "question 1")
    assert (table.ids, table.datasets, table.categories) == (("p0", "p1"), ("sums",) * 2, ("easy",) * 2)
    assert table.tiers == ("direct", "long")
    assert dict(table.lengths) == {"direct": 0, "long": 256}
    assert table.correct.tolist() == [[0.5, 0.5]] * 2
    assert table.tokens.tolist() == [[10, 10]] * 2
    assert (table.samples == 2).all()


def test_grades_of_another_reference() -> None:
    """Grades count as long as the reference is the one that they were given by."""
    asked = {each.id: each for each in prompts(2)}
    answers = {each.key: each for each in (answer("p0"), answer("p1"))}
    grades = [grade("p0", rubric=asked["p0"].rubric), grade("p1", rubric="before")]

    found = current_grades("exact", asked, answers, {("exact", each.key): each for each in grades})

    assert list(found) == [("p0", "direct", 0)]
    assert current_grades("number", asked, answers, {("exact", each.key): each for each in grades}) == {}
