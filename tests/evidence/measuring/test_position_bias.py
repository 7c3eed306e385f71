"""A judge's position bias, from the verdicts that are kept with the grades."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.evidence.grading.judge import JudgeGrader
from gateway.evidence.grading.verdict import JudgeMessage
from gateway.evidence.measuring.grading_answers import grade_answers
from gateway.evidence.measuring.journal import AnswerJournal, GivenGrade, RunHead
from gateway.evidence.measuring.position_bias import position_bias
from tests.evidence.measuring.making import RUNGS, answer, grade, prompts


def judged(prompt: str, *verdicts: Any) -> list[GivenGrade]:
    return [grade(prompt, sample=at, by="judge", verdicts=each) for at, each in enumerate(verdicts)]


def test_share_with_its_interval() -> None:
    """One pair of each prompt: Wilson's interval of four in ten."""
    verdicts = [("1", "1")] * 3 + [("2", "2")] + [("1", "2")] * 4 + [("tie", "tie"), ("1", "tie")]
    grades = [each for n, pair in enumerate(verdicts) for each in judged(f"p{n}", pair)]

    bias = position_bias(grades)

    assert bias is not None
    assert (bias.pairs, bias.first, bias.second, bias.flipped.prompts) == (10, 3, 1, 10)
    assert tuple(bias.flipped[:3]) == pytest.approx((0.4, 0.168, 0.687), abs=1e-3)


def test_pairs_of_a_prompt_are_not_independent() -> None:
    """Ten pairs of each of ten prompts, all alike within a prompt, say no more than ten pairs."""
    one = [each for n in range(10) for each in judged(f"p{n}", ("1", "1") if n < 4 else ("1", "2"))]
    many = [each for n in range(10) for each in judged(f"p{n}", *[("1", "1") if n < 4 else ("1", "2")] * 10)]

    few, all_ = position_bias(one), position_bias(many)

    assert few is not None
    assert all_ is not None
    assert (few.pairs, all_.pairs) == (10, 100)
    assert all_.flipped == pytest.approx(few.flipped, abs=0.02)


def test_without_a_judge() -> None:
    """Grades without verdicts have no bias: of other graders, of the longest rung, after nonsense."""
    assert position_bias([]) is None
    assert position_bias([grade("p0"), grade("p1", by="judge", score=None)]) is None


def test_verdicts_outlive_the_run(tmp_path: Path) -> None:
    """A run that goes on has the verdicts of the part before."""

    def first(_: list[JudgeMessage]) -> str:
        return "VERDICT: 1"

    head = RunHead(
        "run", "tiny", "tiny", "digest", {}, {rung.name: (rung.thinking, rung.answer) for rung in RUNGS}
    )
    asked = {each.id: each for each in prompts(3)}
    answers = [answer(name, rung, text=f"{rung} {name}") for name in asked for rung in ("direct", "long")]
    journal = AnswerJournal.open(tmp_path / "answers.jsonl", head)
    grade_answers(JudgeGrader(first), asked, RUNGS, answers, by="judge", at_once=2, keep=journal.add)
    journal.close()

    again = AnswerJournal.open(tmp_path / "answers.jsonl", head)
    again.close()
    bias = position_bias(again.grades.values())

    assert bias is not None
    assert (bias.flipped.mean, bias.pairs, bias.first, bias.second) == (1.0, 3, 3, 0)
    kept = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line.get("verdicts") for line in kept if line.get("rung") == "direct"] == [["1", "1"]] * 3
