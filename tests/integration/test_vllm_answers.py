"""The tiny reasoner on a real vLLM, through the gateway, answers like the embedded engine, and is right as
often as in the published table."""

import asyncio
import gzip
import json
import statistics
from typing import Any

import pytest
from openai import AsyncOpenAI

from examples.tiny_reasoner.engine import Engine
from examples.tiny_reasoner.evaluate import HERE
from examples.tiny_reasoner.task import grade

from .conftest import TIERS
from .embedded import Said, greedy, tokens_of

QUESTIONS = 200
AT_ONCE = 32


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The first rows of the outcome table."""
    table = gzip.decompress((HERE / "measured" / "outcomes.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in table.splitlines()[:QUESTIONS]]


async def ask_all(client: AsyncOpenAI, tier: str, rows: list[dict[str, Any]], **fields: Any) -> list[Said]:
    """Ask every question at a pinned tier, several at a time, each with its own seed."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(seed: int, text: str) -> Said:
        async with gate:
            answer = await client.chat.completions.create(
                model=f"tiny:{tier}", messages=[{"role": "user", "content": text}], seed=seed, **fields
            )
        message, usage = answer.choices[0].message, answer.usage
        assert usage
        return Said(
            reasoning=message.model_extra["reasoning"] or "",
            content=message.content or "",
            thought=tokens_of(message.model_extra["reasoning"]),
            tokens=usage.completion_tokens,
        )

    return await asyncio.gather(*(ask(seed, row["prompt"]) for seed, row in enumerate(rows)))


@pytest.mark.parametrize("tier", ["direct", "short", "long"])
async def test_greedy_agreement(
    async_client: AsyncOpenAI, engine: Engine, rows: list[dict[str, Any]], tier: str
) -> None:
    """Greedy completions of vLLM and of the embedded engine agree on 99 % of thoughts and answers."""
    theirs = await ask_all(async_client, tier, rows, temperature=0)
    ours = await asyncio.to_thread(greedy, engine, [row["prompt"] for row in rows], TIERS[tier]["thinking"])
    differ = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    assert len(differ) <= 0.01 * len(rows), differ[:3]


@pytest.mark.parametrize("tier", [*TIERS])
async def test_accuracy_is_that_of_the_table(
    async_client: AsyncOpenAI, rows: list[dict[str, Any]], tier: str
) -> None:
    """One sample per question is right as often as the table says, within four standard deviations.

    If a share p of the table's n samples of a question is right, a further sample has the variance
    v = p(1-p)n/(n-1), and the table's mean has the variance v/n. The difference of the means over N questions
    then has the variance sum(v(1+1/n))/N^2. Tokens must agree within 15 %.
    """
    said = await ask_all(async_client, tier, rows, temperature=0.7)
    right = [grade(one.content, row["answer"]) for one, row in zip(said, rows, strict=True)]
    measured = [row["tiers"][tier] for row in rows]
    variance = sum(
        m["correct"] * (1 - m["correct"]) * m["n"] / (m["n"] - 1) * (1 + 1 / m["n"]) for m in measured
    )
    tolerance = 4 * variance**0.5 / len(rows)
    expected = statistics.mean(m["correct"] for m in measured)
    assert statistics.mean(right) == pytest.approx(expected, abs=tolerance)
    tokens = statistics.mean(m["tokens"] for m in measured)
    assert statistics.mean(one.tokens for one in said) == pytest.approx(tokens, rel=0.15)
