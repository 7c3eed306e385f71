"""What vLLM answers without the gateway, it answers at every tier: no bound of ours makes it refuse.

Up to 0.31 vLLM refuses a request whose prompt and output limit together exceed the context. From 0.32 it
lowers the limit, and a long thought then leaves nothing for the answer.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from examples.tiny_reasoner.chat import render
from examples.tiny_reasoner.engine import Engine
from tests.serving import Running, configuration, serving

from .abilities import Abilities
from .processes import CONTEXT, Replica, fetch

LEFT = 200
"""Tokens of the context beside the long prompt."""
TIERS = {
    "direct": {"thinking": 0, "answer": 60},
    "short": {"thinking": 150, "answer": 60},
    "medium": {"thinking": 1_000, "answer": 60},
    "long": {"thinking": CONTEXT, "answer": 60},
}
SUM = [{"role": "user", "content": "What is 9+3?"}]


@pytest.fixture
async def wide(replicas: list[Replica]) -> AsyncIterator[Running]:
    """A gateway whose longest tier may think as long as the whole context."""
    patient = {"first_byte": 600, "idle": 600}
    settings = configuration(replicas[0].url, model={"tiers": TIERS}, timeouts=patient)
    async with serving(settings) as running:
        yield running


@pytest.fixture(scope="session")
def crowded(engine: Engine) -> list[Any]:
    """Messages that fill the context up to the last tokens."""
    around = len(engine.tokenizer.encode(render("", thinking=True)))
    return [{"role": "user", "content": "7" * (CONTEXT - LEFT - around)}]


@pytest.mark.parametrize("tier", [*TIERS])
async def test_a_prompt_that_nearly_fills_the_context(wide: Running, crowded: list[Any], tier: str) -> None:
    """At every tier it is answered; the thought is shortened, and the answer keeps its room.

    The tiny reasoner has never seen such a prompt and writes zeros, so that vLLM finds no thought to end.
    """
    body = {"model": f"tiny:{tier}", "messages": crowded, "temperature": 0, "ignore_eos": True}
    async with wide.http.post(f"{wide.url}/v1/chat/completions", json=body) as response:
        answer = await response.json()
        assert (response.status, response.headers.get("x-thinkmeter-tier")) == (200, tier), answer
    written, budget = answer["usage"]["completion_tokens"], response.headers["x-thinkmeter-thinking-budget"]
    if tier == "direct":
        assert (written, budget) == (TIERS["direct"]["answer"], "0")
        assert answer["choices"][0]["message"]["content"], answer
    else:
        assert TIERS[tier]["answer"] < written <= LEFT
        assert 0 < int(budget) <= written - TIERS[tier]["answer"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("limit", [LEFT, LEFT + 1])
async def test_the_clients_own_limit(
    wide: Running,
    replicas: list[Replica],
    crowded: list[Any],
    abilities: Abilities,
    limit: int,
    stream: bool,
) -> None:
    """A limit of the client's that does not fit is vLLM's to judge: it refuses or lowers it as without us."""
    fields = {"messages": crowded, "temperature": 0, "max_tokens": limit, "stream": stream}
    async with wide.http.post(
        f"{replicas[0].url}/v1/chat/completions", json={"model": "tiny"} | fields
    ) as bare:
        await bare.read()
    assert bare.status == (200 if limit <= LEFT or abilities.shortens else 400)
    async with wide.http.post(
        f"{wide.url}/v1/chat/completions", json={"model": "tiny:long"} | fields
    ) as ours:
        text = await ours.text()
    assert ours.status == bare.status, text


@pytest.mark.parametrize("tier", ["direct", "short"])
def test_min_tokens_above_the_cap(gateway: Any, tier: str) -> None:
    """`min_tokens` above the tier's cap raises the cap."""
    body = {"model": f"tiny:{tier}", "messages": SUM, "temperature": 0, "min_tokens": 70}
    answer = json.loads(fetch(f"{gateway.url}/v1/chat/completions", json.dumps(body).encode()))
    assert answer["usage"]["completion_tokens"] >= 70


async def test_min_tokens_above_the_clients_own_limit(wide: Running) -> None:
    """That is the client's mistake, and vLLM says so."""
    response = await wide.chat("What is 9+3?", model="tiny:direct", min_tokens=50, max_tokens=20)
    assert response.status == 400
    assert "min_tokens" in await response.text()
