"""Asks the gateway: dry runs for estimates, and real answers at a pinned tier or at a price."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

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
    tiers: list[str]
    """The tier of each answer."""

    def right(self, questions: Sequence[Question]) -> Floats:
        """Whether the first sample is right, [N]."""
        pairs = zip(self.texts, questions, strict=True)
        return np.array([float(texts[0] == question.answer) for texts, question in pairs])


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600)


async def estimates(url: str, questions: Sequence[Question]) -> tuple[Floats, Floats, str]:
    """P(right) and expected tokens, [N, T], from the gateway's head, and the head's version."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> dict[str, dict[str, dict[str, float | str]]]:
        async with slots:
            body = {"model": "tiny", "messages": [{"role": "user", "content": question.text}]}
            found = await asker.post("/route", body=body, cast_to=object)
            return cast("dict[str, dict[str, dict[str, float | str]]]", found)

    async with client(url) as asker:
        decisions = [entry["decision"] for entry in await asyncio.gather(*map(one, questions))]
    correct, tokens = (
        np.array([[float(d[name][tier]) for tier in TIERS] for d in decisions])
        for name in ("correct", "tokens")
    )
    return correct, tokens, str(decisions[0]["versions"]["head"])


async def answers(
    url: str, model: str, questions: Sequence[Question], samples: int, tick: Callable[[], object]
) -> Answers:
    """Real answers through the gateway, at its tier or, with `tiny:TIER`, at a pinned one.

    Sends no seeds, because vLLM's CPU build (0.32) crashes on a seed when it prefills a prompt in chunks.
    """
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> tuple[list[str | None], float, str]:
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
        return texts, completion.usage.completion_tokens / samples, raw.headers["x-thinkmeter-tier"]

    async with client(url) as asker:
        rows = await asyncio.gather(*map(one, questions))
    return Answers([row[0] for row in rows], np.array([row[1] for row in rows]), [row[2] for row in rows])
