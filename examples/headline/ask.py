"""Asks the gateway: dry runs for estimates, and real answers at a pinned tier or at a price."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openai
from numpy.typing import NDArray

from examples.servers import TIERS
from examples.tiny_reasoner.task import Question, read_number

Floats = NDArray[np.float64]
AT_ONCE = 96
TEMPERATURE = 0.7


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to N questions, with S samples of each."""

    texts: list[list[str | None]]
    """[N][S]; None where the answer is no number."""
    tokens: Floats
    """Completion tokens per sample, [N]."""
    thinking: list[int]
    """The thinking budget of each answer."""

    def right(self, questions: Sequence[Question]) -> Floats:
        """Whether the first sample is right, [N]."""
        pairs = zip(self.texts, questions, strict=True)
        return np.array([float(texts[0] == question.answer) for texts, question in pairs])


def name_of(budget: int) -> str:
    """What a fixed thinking budget is called: the tier that has it, otherwise its number of tokens."""
    return next((tier for tier, tokens in TIERS.items() if tokens == budget), f"{budget}_tokens")


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600)


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs that the gateway chooses among, and the head's estimates for N questions."""

    thinking: list[int]
    """Thinking tokens of each rung, rising, [T]."""
    correct: Floats
    """P(right), [N, T]."""
    tokens: Floats
    """Expected completion tokens, [N, T]."""
    head: str
    """The version of the head."""


async def ladder(url: str, questions: Sequence[Question]) -> Ladder:
    """What the gateway would decide from, by dry runs."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Any:
        async with slots:
            body = {"model": "tiny", "messages": [{"role": "user", "content": question.text}]}
            return await asker.post("/route", body=body, cast_to=object)

    async with client(url) as asker:
        decisions = [entry["decision"] for entry in await asyncio.gather(*map(one, questions))]
    rungs = [decision["rungs"] for decision in decisions]
    correct, tokens = (np.array([rung[name] for rung in rungs]) for name in ("correct", "tokens"))
    return Ladder(list(rungs[0]["thinking"]), correct, tokens, str(decisions[0]["versions"]["head"]))


async def answers(
    url: str, model: str, questions: Sequence[Question], samples: int, tick: Callable[[], object]
) -> Answers:
    """Real answers through the gateway, at its rung or, with `tiny:TIER`, at a pinned tier.

    Sends no seeds, because vLLM's CPU build (0.32) crashes on a seed when it prefills a prompt in chunks.
    """
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> tuple[list[str | None], float, int]:
        async with slots:
            raw = await asker.chat.completions.with_raw_response.create(
                model=model,
                messages=[{"role": "user", "content": question.text}],
                temperature=TEMPERATURE,
                n=samples,
            )
        completion = raw.parse()
        if completion.usage is None:
            raise RuntimeError("the gateway did not pass on the usage")
        tick()
        texts = [read_number(choice.message.content or "") for choice in completion.choices]
        thinking = int(raw.headers["x-thinkmeter-thinking-budget"])
        return texts, completion.usage.completion_tokens / samples, thinking

    async with client(url) as asker:
        rows = await asyncio.gather(*map(one, questions))
    return Answers([row[0] for row in rows], np.array([row[1] for row in rows]), [row[2] for row in rows])
