"""While a thought is hidden vLLM sends nothing: that silence is not the death of the stream."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from examples.tiny_reasoner.engine import Engine
from tests.serving import Running, configuration, serving

from .abilities import Abilities
from .processes import Replica

IDLE = 2
HIDDEN = 3_000
"""Tokens of the thought. vLLM generates fewer than 1,000 a second, so the silence is longer than `IDLE`."""


@pytest.fixture
async def impatient(replicas: list[Replica]) -> AsyncIterator[Running]:
    """A gateway that ends a stream soon after it falls silent."""
    tiers = {"direct": {"thinking": 0, "answer": 16}, "long": {"thinking": HIDDEN, "answer": 16}}
    settings = configuration(
        replicas[0].url, model={"tiers": tiers}, timeouts={"first_byte": 600, "idle": IDLE}
    )
    async with serving(settings) as running:
        yield running


@pytest.mark.parametrize(
    "hidden", [{"reasoning": {"exclude": True}}, {"include_reasoning": False}], ids=["exclude", "include"]
)
async def test_a_hidden_thought(
    impatient: Running, engine: Engine, abilities: Abilities, hidden: dict[str, Any]
) -> None:
    """The stream goes on to the answer and to its orderly end, however long the thought takes."""
    never = {str(token): -100 for token in (engine.unthink, engine.end)}  # only the budget ends the thought
    fields = {"stream": True, "temperature": 0, "ignore_eos": True, "logit_bias": never} | hidden
    response = await impatient.chat("Start with 3. Add 4. What do you get?", model="tiny:long", **fields)
    text = await response.text()
    assert response.status == 200, text
    assert text.endswith("data: [DONE]\n\n"), text[-500:]
    assert '"error"' not in text
    assert '"content":"' in text.replace('"content":""', "")
    assert ('"reasoning":"' not in text) == abilities.hides_streams
    (record,) = await impatient.recorded(1)
    assert record.usage.completion
    assert record.usage.completion > HIDDEN // 2
