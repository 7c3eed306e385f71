"""Compares the two answers of a shadow pair: with each other, or by a judge who knows not which is which."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from msgspec import Struct

from gateway.budget.ledger import Ledger
from gateway.budget.limits import Limit
from gateway.budget.reservation import Demand, Outcome, TierDemand
from gateway.budget.waiting import Turn
from gateway.config.evidence import JudgeSettings, ShadowSettings
from gateway.config.models import Replica
from gateway.errors import BudgetUnavailable, TokensExceeded
from gateway.evidence.grading.agreement import AgreementGrader, AnswerKind
from gateway.evidence.grading.asking_judge import judge_reply
from gateway.evidence.grading.grade import ModelAnswer
from gateway.evidence.grading.judge import JudgeFailed
from gateway.evidence.grading.mathematics import MathGrader
from gateway.evidence.grading.verdict import JudgedPair, comparison
from gateway.openai_api.usage import TokenUsage
from gateway.upstream.dispatch import Upstream

_JUDGE_SECONDS = 60.0
_MATH_SECONDS = 5
_VERDICT = 4096
"""Tokens reserved for what a judge writes; what it has used is settled."""
_QUEUE = Turn(0.0, 0)
_NO_ROOM = "the shadow budget has no room for the judge"


class ComparedPair(Struct, frozen=True):
    """The scores of both answers; None if they could not be compared."""

    served: float | None
    shadow: float | None
    flipped: bool | None = None
    note: str | None = None


class AnswerPair(Struct, frozen=True):
    """What is compared."""

    model: str
    prompt: str
    """The last message of the user."""
    conversation: str
    """The end of the whole chat."""
    served: ModelAnswer
    shadow: ModelAnswer
    shadow_is_longer: bool
    """The answer of the longer rung is the measure of the other one."""


class Comparing(Protocol):
    """One way to compare answers."""

    async def compare(self, pair: AnswerPair) -> ComparedPair:
        """Compare the answers. What takes long happens outside of the event loop."""
        ...

    def close(self) -> None:
        """End what it holds, without waiting."""
        ...


class Agreeing:
    """Whether the answers say the same. Where they differ, the longer rung's counts as right."""

    def __init__(self, kind: AnswerKind) -> None:
        self._grader = AgreementGrader(kind)

    async def compare(self, pair: AnswerPair) -> ComparedPair:
        loop = asyncio.get_running_loop()
        measure, other = _in_order(pair)
        grade = await loop.run_in_executor(None, self._grader.same, pair.prompt, other, measure)
        return _by_agreement(pair, grade.score, grade.note)

    def close(self) -> None:
        return


class AgreeingMathematically:
    """Whether two expressions are equal, by math-verify in a process of its own."""

    def __init__(self) -> None:
        self._grader = MathGrader(1, _MATH_SECONDS)

    async def compare(self, pair: AnswerPair) -> ComparedPair:
        loop = asyncio.get_running_loop()
        measure, other = _in_order(pair)
        grade = await loop.run_in_executor(None, self._grader.grade, pair.prompt, measure.text, other)
        return _by_agreement(pair, grade.score, grade.note)

    def close(self) -> None:
        with suppress(RuntimeError):  # no loop runs any more
            asyncio.get_running_loop().run_in_executor(None, self._grader.close)


class Judging:
    """Has a model compare the answers in both orders. Its tokens count under the shadow budget."""

    def __init__(
        self,
        settings: JudgeSettings,
        upstream: Upstream,
        ledger: Ledger,
        limit: Limit,
        count_tokens: Callable[[str, int], None],
    ) -> None:
        self._replica = Replica(url=settings.url, api_key=settings.api_key)
        self._model = settings.model
        self._upstream, self._ledger, self._limit = upstream, ledger, limit
        self._count_tokens = count_tokens

    async def compare(self, pair: AnswerPair) -> ComparedPair:
        texts = pair.conversation, pair.served.text, pair.shadow.text
        bytes_read = 2 * (2_000 + sum(len(text.encode("utf-8", "surrogatepass")) for text in texts))
        demand = Demand(
            (TierDemand(2 * _VERDICT),), prompt=bytes_read, minimum=2 * _VERDICT, soft=False, strict=True
        )
        try:
            reservation = await self._ledger.begin((self._limit,), demand, _QUEUE)
        except (TokensExceeded, BudgetUnavailable):
            return ComparedPair(None, None, note=_NO_ROOM)
        used = TokenUsage(0, 0, source="backend")
        try:
            judged = await self._judged(pair, used)
        finally:
            reservation.outcome = Outcome(usage=used, attempts=1, answered=True)
            self._ledger.end(reservation, None)
            self._count_tokens(pair.model, (used.prompt or 0) + (used.completion or 0))
        other = None if judged.score is None else 1 - judged.score
        return ComparedPair(judged.score, other, judged.flipped, judged.note)

    async def _judged(self, pair: AnswerPair, used: TokenUsage) -> JudgedPair:
        steps = comparison(pair.conversation, None, pair.served.text, pair.shadow.text)
        try:
            messages = next(steps)
            while True:
                reply = await judge_reply(
                    self._upstream, self._replica, self._model, messages, _JUDGE_SECONDS
                )
                used.prompt = (used.prompt or 0) + (reply.usage.prompt or 0)
                used.completion = (used.completion or 0) + (reply.usage.completion or 0)
                messages = steps.send(reply.text)
        except StopIteration as end:
            judged: JudgedPair = end.value
            return judged
        except JudgeFailed as failure:
            return JudgedPair(None, note=f"the judge failed: {failure}"[:300])

    def close(self) -> None:
        return


def comparing_of(
    settings: ShadowSettings,
    upstream: Upstream,
    ledger: Ledger,
    limit: Limit,
    count_tokens: Callable[[str, int], None],
) -> Comparing:
    """What compares answers under these settings. limit: what a judge's tokens count under."""
    if settings.judge is not None and settings.grade == "judge":
        return Judging(settings.judge, upstream, ledger, limit, count_tokens)
    if settings.grade == "math":
        return AgreeingMathematically()
    kinds: dict[str, AnswerKind] = {"exact": "exact", "number": "number", "choice": "choice"}
    return Agreeing(kinds.get(settings.grade, "auto"))


def _in_order(pair: AnswerPair) -> tuple[ModelAnswer, ModelAnswer]:
    """The answer of the longer rung, and the other one."""
    return (pair.shadow, pair.served) if pair.shadow_is_longer else (pair.served, pair.shadow)


def _by_agreement(pair: AnswerPair, score: float | None, note: str | None) -> ComparedPair:
    """score: of the answer that is compared with the longer rung's."""
    if score is None:
        return ComparedPair(None, None, note=note)
    served, shadow = (score, 1.0) if pair.shadow_is_longer else (1.0, score)
    return ComparedPair(served, shadow, note=note)
