"""How long the model thinks: tiers, and the client's own wishes as a ceiling.

The model never ends a greedy thought by itself, so whatever ends it is the limit under test. It thinks in
upper case and answers in lower case, one token a letter.
"""

from typing import Any, NamedTuple

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam as Message

from .conftest import TIERS

HARD: list[Message] = [
    {"role": "user", "content": "Prove step by step that sqrt(2) is irrational. Why? 3*17=?"}
]
MARKERS = 2  # <think> and </think>


class Length(NamedTuple):
    """What one answer cost, by vLLM's own count, and what it said."""

    tier: str
    thought: int
    completion: int
    reasoning: str
    content: str


def ask(client: OpenAI, model: str, **fields: Any) -> Length:
    response = client.chat.completions.with_raw_response.create(
        model=model, messages=HARD, temperature=0, **fields
    )
    answer = response.parse()
    message, usage = answer.choices[0].message, answer.usage
    assert usage
    assert usage.completion_tokens_details
    return Length(
        tier=response.headers["x-thinkmeter-tier"],
        thought=usage.completion_tokens_details.reasoning_tokens or 0,
        completion=usage.completion_tokens,
        reasoning=message.model_extra["reasoning"] or "",
        content=(message.content or "").lstrip("\n"),
    )


def test_direct(client: OpenAI) -> None:
    """The tier `direct` does not think: no reasoning text, no reasoning tokens, only an answer."""
    length = ask(client, "tiny:direct")
    assert (length.tier, length.thought, length.reasoning) == ("direct", 0, "")
    assert length.completion == len(length.content) == TIERS["direct"]["answer"]
    assert length.content.islower()


def test_direct_stream(client: OpenAI) -> None:
    """A stream of the tier `direct` carries no reasoning in any chunk."""
    with client.chat.completions.create(
        model="tiny:direct", messages=HARD, temperature=0, stream=True
    ) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]
    assert not any(getattr(delta, "reasoning", None) for delta in deltas)
    assert "".join(delta.content or "" for delta in deltas).islower()


@pytest.mark.parametrize("tier", ["short", "medium"])
def test_pinned_tier(client: OpenAI, tier: str) -> None:
    """A pinned tier thinks exactly as long as its budget allows, then answers within its total."""
    length = ask(client, f"tiny:{tier}")
    assert length.tier == tier
    assert length.thought == len(length.reasoning) == TIERS[tier]["thinking"]
    assert length.reasoning.isupper()
    assert length.content.islower()
    assert length.completion <= TIERS[tier]["thinking"] + TIERS[tier]["answer"]
    assert len(length.content) >= TIERS[tier]["answer"] - MARKERS - 1


def test_pinned_tier_stream(client: OpenAI) -> None:
    """The budget holds in a stream too."""
    with client.chat.completions.create(
        model="tiny:short", messages=HARD, temperature=0, stream=True
    ) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]
    reasoning = "".join(getattr(delta, "reasoning", None) or "" for delta in deltas)
    assert len(reasoning) == TIERS["short"]["thinking"]
    assert reasoning.isupper()


def test_thought_that_ends_by_itself(client: OpenAI) -> None:
    """Sampling ends some thoughts before the budget does; the answer follows all the same."""
    answers = [
        client.chat.completions.create(model="tiny:medium", messages=HARD, temperature=1, seed=seed)
        for seed in range(20)
    ]
    thoughts = [answer.choices[0].message.model_extra["reasoning"] or "" for answer in answers]
    assert max(map(len, thoughts)) <= TIERS["medium"]["thinking"]
    assert min(map(len, thoughts)) < TIERS["medium"]["thinking"]
    assert all((answer.choices[0].message.content or "").strip().islower() for answer in answers)


@pytest.mark.parametrize(("effort", "tier"), [("none", "direct"), ("minimal", "direct"), ("low", "short")])
def test_effort_is_a_ceiling(client: OpenAI, effort: Any, tier: str) -> None:
    """`reasoning_effort` lowers even a pinned tier, and vLLM thinks no longer than the lower one allows."""
    length = ask(client, "tiny:long", reasoning_effort=effort)
    assert length.tier == tier
    assert length.thought == TIERS[tier]["thinking"]
    assert length.content.islower()


def test_high_effort(client: OpenAI) -> None:
    """`reasoning_effort: high` leaves the longest tier; the client's cap still keeps room to answer."""
    length = ask(client, "tiny:long", reasoning_effort="high", max_completion_tokens=300)
    assert length.tier == "long"
    assert 100 < length.thought < 300
    assert length.completion <= 300
    assert length.content.islower()


@pytest.mark.parametrize("effort", ["none", "low", "high"])
def test_effort_bounds_the_adaptive_choice(client: OpenAI, effort: Any) -> None:
    """Whatever the gateway picks for an unpinned name, it is not above the client's effort."""
    length = ask(client, "tiny", reasoning_effort=effort, max_completion_tokens=300)
    allowed = {"none": ["direct"], "low": ["direct", "short"], "high": [*TIERS]}[effort]
    assert length.tier in allowed
    assert length.thought <= max(TIERS[tier]["thinking"] for tier in allowed)
    assert length.content.islower()


@pytest.mark.parametrize("budget", [0, 1, 20])
def test_client_budget(client: OpenAI, budget: int) -> None:
    """The client's own `thinking_token_budget` holds to the token, below the tier's."""
    length = ask(client, "tiny:medium", extra_body={"thinking_token_budget": budget})
    assert length.thought == len(length.reasoning) == budget
    assert length.content.islower()


@pytest.mark.parametrize(
    "wish",
    [
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning": {"effort": "none"}},
        {"thinking": {"type": "disabled"}},
    ],
    ids=["template", "reasoning", "thinking"],
)
def test_thinking_off_in_other_dialects(client: OpenAI, wish: dict[str, Any]) -> None:
    """Thinking is off however the client says it."""
    length = ask(client, "tiny", extra_body=wish)
    assert (length.tier, length.thought, length.reasoning) == ("direct", 0, "")
    assert length.content.islower()


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_client_cap(client: OpenAI, field: str) -> None:
    """The client's cap holds for reasoning and answer together, and never eats the whole answer."""
    length = ask(client, "tiny:medium", **{field: 40})
    assert length.completion <= 40
    assert length.content.islower()


def test_cap_above_the_tier(client: OpenAI) -> None:
    """A cap above the tier's total does not raise it."""
    length = ask(client, "tiny:short", max_tokens=5000)
    assert length.completion == TIERS["short"]["thinking"] + TIERS["short"]["answer"]
