"""What became of every prompt at every rung, from the answers and grades of a run. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.evidence.measuring.journal import GivenGrade, MeasuredAnswer
from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.evidence.measuring.work import AnswerKey, MeasuredRung
from router_model.arrays import Floats


@dataclass(frozen=True)
class MeasuredOutcomes:
    """P prompts at R rungs with S samples each."""

    prompts: tuple[MeasuredPrompt, ...]
    rungs: tuple[MeasuredRung, ...]
    correct: Floats
    """Scores in [0, 1], [P, R, S]; NaN where there is no answer, no grade, or no count of its tokens."""
    tokens: Floats
    """Completion tokens, [P, R, S]; NaN in the same places."""

    @property
    def samples(self) -> int:
        return int(self.correct.shape[2])

    @property
    def complete(self) -> MeasuredOutcomes:
        """Only the prompts that have all outcomes."""
        rows = np.flatnonzero(~np.isnan(self.correct).any(axis=(1, 2)))
        prompts = tuple(self.prompts[row] for row in rows)
        return MeasuredOutcomes(prompts, self.rungs, self.correct[rows], self.tokens[rows])

    def of_rung(self, at: int) -> tuple[Floats, Floats]:
        """Mean score and mean tokens of each prompt that has an outcome at a rung, and NaN of others, [P]."""
        return _mean(self.correct[:, at]), _mean(self.tokens[:, at])


def outcomes_of_run(
    prompts: Sequence[MeasuredPrompt],
    rungs: Sequence[MeasuredRung],
    samples: int,
    answers: Mapping[AnswerKey, MeasuredAnswer],
    grades: Mapping[AnswerKey, GivenGrade],
) -> MeasuredOutcomes:
    """The outcomes of answers that are both graded and counted."""
    correct = np.full((len(prompts), len(rungs), samples), math.nan)
    tokens = np.full_like(correct, math.nan)
    rows = {prompt.id: row for row, prompt in enumerate(prompts)}
    columns = {rung.name: column for column, rung in enumerate(rungs)}
    for key, answer in answers.items():
        grade = grades.get(key)
        row, column = rows.get(key.prompt), columns.get(key.rung)
        if row is None or column is None or key.sample >= samples:
            continue
        if grade is not None and grade.score is not None and answer.tokens is not None:
            correct[row, column, key.sample] = grade.score
            tokens[row, column, key.sample] = answer.tokens
    return MeasuredOutcomes(tuple(prompts), tuple(rungs), correct, tokens)


def current_grades(
    by: str,
    prompts: Mapping[str, MeasuredPrompt],
    answers: Mapping[AnswerKey, MeasuredAnswer],
    grades: Mapping[tuple[str, AnswerKey], GivenGrade],
) -> dict[AnswerKey, GivenGrade]:
    """The grades that a grader gave to these answers by the references that the prompts have now."""
    found = ((key, grades.get((by, key))) for key in answers)
    return {
        key: grade for key, grade in found if grade is not None and grade.rubric == prompts[key.prompt].rubric
    }


def outcome_rows(outcomes: MeasuredOutcomes) -> Iterator[dict[str, Any]]:
    """The rows of an outcome table, as `thinkmeter calibrate` reads them. See data/README.md."""
    for row, prompt in enumerate(outcomes.prompts):
        tiers = {}
        for column, rung in enumerate(outcomes.rungs):
            scores = outcomes.correct[row, column]
            known = ~np.isnan(scores)
            if known.any():
                tiers[rung.name] = {
                    "correct": round(float(scores[known].mean()), 6),
                    "tokens": round(float(outcomes.tokens[row, column][known].mean()), 3),
                    "n": int(known.sum()),
                    "thinking": rung.thinking,
                }
        if tiers:
            named = {"id": prompt.id, "dataset": prompt.dataset, "category": prompt.category}
            given = {name: value for name, value in named.items() if value is not None}
            yield {**given, "prompt": prompt.text, "tiers": tiers}


def _mean(cells: Floats) -> Floats:
    """Means over the samples that are known, [P]."""
    known = ~np.isnan(cells)
    count = known.sum(axis=1)
    means: Floats = np.divide(
        np.nan_to_num(cells).sum(axis=1), count, out=np.full(len(cells), math.nan), where=count > 0
    )
    return means
