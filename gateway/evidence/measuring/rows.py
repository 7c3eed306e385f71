"""The rows of a run in the store of evidence. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from gateway.evidence.features import encode_features
from gateway.evidence.measuring.journal import GivenGrade, MeasuredAnswer
from gateway.evidence.measuring.prompts import MeasuredPrompt
from gateway.evidence.measuring.work import AnswerKey, MeasuredRung
from gateway.evidence.rows import MeasuredRow
from router_model.encoders.ngrams import part_read

_PROMPTS = 1_024
"""What is kept of so many prompts is remembered: each has a row for every rung and sample."""


def measured_rows(
    *,
    run: str,
    model: str,
    grader: str,
    prompts: Mapping[str, MeasuredPrompt],
    rungs: Mapping[str, MeasuredRung],
    answers: Iterable[MeasuredAnswer],
    grades: Mapping[AnswerKey, GivenGrade],
    kept: Callable[[str], str | None],
) -> Iterator[MeasuredRow]:
    """One row per answer. The same run graded by another grader is another run in the store.

    kept: what the store keeps of a prompt's text.
    """

    @lru_cache(maxsize=_PROMPTS)
    def of_prompt(name: str) -> tuple[bytes, str | None]:
        said = prompts[name].text
        return encode_features(part_read(said), len(said)), kept(said)

    named = f"{run}-{hashlib.sha256(grader.encode()).hexdigest()[:8]}"
    for answer in answers:
        grade, prompt = grades.get(answer.key), prompts[answer.prompt]
        yield MeasuredRow(
            named,
            answer.at,
            model,
            prompt.id,
            prompt.dataset,
            answer.rung,
            rungs[answer.rung].thinking,
            answer.sample,
            grade.score if grade else None,
            grader[:64],
            answer.tokens,
            answer.reasoning,
            answer.finish,
            grade.note if grade else None,
            *of_prompt(prompt.id),
        )
