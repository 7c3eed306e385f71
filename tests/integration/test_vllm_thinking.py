"""How long the model thinks under each tier and under the client's own limits, and what it then answers.

The text shows what ended a thought: under a smaller budget, a greedy thought is the beginning of the thought
under a larger one. If the thought may end by itself, the answer is right.
"""

from typing import Any, NamedTuple

import pytest
from openai import OpenAI

from examples.tiny_reasoner.engine import Engine
from examples.tiny_reasoner.task import grade, read_number

from .conftest import TIERS, Puzzle
from .embedded import greedy, tokens_of


class Length(NamedTuple):
    """The tokens of one completion as vLLM counts them, and its texts."""

    tier: str
    thought: int
    completion: int
    reasoning: str
    content: str


def ask(client: OpenAI, puzzle: Puzzle, model: str, **fields: Any) -> Length:
    response = client.chat.completions.with_raw_response.create(
        **{"model": model, "messages": puzzle.messages, "temperature": 0} | fields
    )
    answer = response.parse()
    message, usage = answer.choices[0].message, answer.usage
    assert usage
    return Length(
        tier=response.headers["x-thinkmeter-tier"],
        thought=tokens_of(message.model_extra["reasoning"]),
        completion=usage.completion_tokens,
        reasoning=message.model_extra["reasoning"] or "",
        content=message.content or "",
    )


def beginning(engine: Engine, puzzle: Puzzle, budget: int) -> str:
    """The first tokens of the puzzle's long thought."""
    return engine.tokenizer.decode(engine.tokenizer.encode(puzzle.long.reasoning)[:budget])


def test_direct(client: OpenAI, easy: Puzzle) -> None:
    """The tier `direct` does not think: no reasoning text, no reasoning tokens, only the right number."""
    length = ask(client, easy, "tiny:direct")
    assert (length.tier, length.thought, length.reasoning) == ("direct", 0, "")
    assert length.content == easy.question.answer
    assert length.completion == len(length.content) + 1  # one token per digit, and the end


def test_direct_stream(client: OpenAI, easy: Puzzle) -> None:
    """A stream of the tier `direct` carries no reasoning in any chunk, and the right number as content."""
    with client.chat.completions.create(
        model="tiny:direct", messages=easy.messages, temperature=0, stream=True
    ) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]
    assert not any(getattr(delta, "reasoning", None) for delta in deltas)
    assert "".join(delta.content or "" for delta in deltas) == easy.question.answer


def test_long(client: OpenAI, hard: Puzzle) -> None:
    """A question that is answered wrong at `direct` is answered right after a long thought."""
    assert not grade(ask(client, hard, "tiny:direct").content, hard.question.answer)
    length = ask(client, hard, "tiny:long")
    assert length.reasoning == hard.long.reasoning
    assert "\ncheck\n" in length.reasoning
    assert length.reasoning.endswith("\nok\n")
    assert grade(length.content, hard.question.answer)


@pytest.mark.parametrize("tier", ["short", "medium"])
def test_pinned_tier(client: OpenAI, engine: Engine, hard: Puzzle, tier: str) -> None:
    """A pinned tier cuts the long thought at exactly its budget, and the model then answers with a number."""
    length = ask(client, hard, f"tiny:{tier}")
    budget = TIERS[tier]["thinking"]
    assert (length.tier, length.thought) == (tier, budget)
    assert length.reasoning == beginning(engine, hard, budget)
    assert length.content == greedy(engine, [hard.question.text], budget)[0].content
    assert read_number(length.content) is not None
    assert length.completion <= budget + TIERS[tier]["answer"]


def test_pinned_tier_stream(client: OpenAI, engine: Engine, hard: Puzzle) -> None:
    """In a stream, the budget cuts the thought at the same place."""
    with client.chat.completions.create(
        model="tiny:short", messages=hard.messages, temperature=0, stream=True
    ) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream]
    reasoning = "".join(getattr(delta, "reasoning", None) or "" for delta in deltas)
    assert reasoning == beginning(engine, hard, TIERS["short"]["thinking"])
    assert read_number("".join(delta.content or "" for delta in deltas)) is not None


def test_thought_that_ends_by_itself(client: OpenAI, easy: Puzzle) -> None:
    """A thought shorter than the budgets of `medium` and `long` has the same tokens at both."""
    medium, long = (ask(client, easy, f"tiny:{tier}") for tier in ("medium", "long"))
    assert medium._replace(tier="long") == long
    assert 0 < long.thought < TIERS["medium"]["thinking"]
    assert grade(long.content, easy.question.answer)


@pytest.mark.parametrize(("effort", "tier"), [("none", "direct"), ("minimal", "direct"), ("low", "short")])
def test_effort_is_a_ceiling(client: OpenAI, hard: Puzzle, effort: Any, tier: str) -> None:
    """`reasoning_effort` lowers even a pinned tier, and vLLM thinks no longer than the lower one allows."""
    length = ask(client, hard, "tiny:long", reasoning_effort=effort)
    assert length == ask(client, hard, f"tiny:{tier}")
    assert length.thought == TIERS[tier]["thinking"]


def test_high_effort(client: OpenAI, hard: Puzzle) -> None:
    """`reasoning_effort: high` allows the longest tier: the completion is the same as without it."""
    assert ask(client, hard, "tiny:long", reasoning_effort="high") == ask(client, hard, "tiny:long")


def test_cap_below_the_tier(client: OpenAI, engine: Engine, hard: Puzzle) -> None:
    """The client's cap cuts the thought, not the answer."""
    length = ask(client, hard, "tiny:long", max_completion_tokens=80)
    assert length.tier == "long"
    assert 40 < length.thought < 80
    assert length.completion <= 80
    assert length.reasoning == beginning(engine, hard, length.thought)
    assert read_number(length.content) is not None


@pytest.mark.parametrize("effort", ["none", "low", "high"])
def test_effort_bounds_the_adaptive_choice(client: OpenAI, hard: Puzzle, effort: Any) -> None:
    """For a name without a tier, the gateway picks no tier above the client's effort."""
    length = ask(client, hard, "tiny", reasoning_effort=effort)
    allowed = {"none": ["direct"], "low": ["direct", "short"], "high": [*TIERS]}[effort]
    assert length.tier in allowed
    assert length.thought <= max(TIERS[tier]["thinking"] for tier in allowed)
    assert read_number(length.content) is not None


@pytest.mark.parametrize("budget", [0, 1, 20])
def test_client_budget(client: OpenAI, engine: Engine, hard: Puzzle, budget: int) -> None:
    """A client's `thinking_token_budget` below the tier's is kept to the token."""
    length = ask(client, hard, "tiny:medium", extra_body={"thinking_token_budget": budget})
    assert length.thought == budget
    assert length.reasoning == beginning(engine, hard, budget)
    assert read_number(length.content) is not None


@pytest.mark.parametrize(
    "limits",
    [
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning": {"effort": "none"}},
        {"thinking": {"type": "disabled"}},
    ],
    ids=["template", "reasoning", "thinking"],
)
def test_thinking_off_in_other_dialects(client: OpenAI, easy: Puzzle, limits: dict[str, Any]) -> None:
    """Every way in which a client can switch off thinking works."""
    length = ask(client, easy, "tiny", extra_body=limits)
    assert (length.tier, length.thought, length.reasoning) == ("direct", 0, "")
    assert length.content == easy.question.answer


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_client_cap(client: OpenAI, hard: Puzzle, field: str) -> None:
    """The client's cap applies to reasoning and answer together, and leaves room for the answer."""
    length = ask(client, hard, "tiny:medium", **{field: 40})
    assert length.completion <= 40
    assert length.thought > 0
    assert read_number(length.content) is not None


def test_cap_above_the_tier(client: OpenAI, hard: Puzzle) -> None:
    """A cap above the tier's total does not raise it."""
    length = ask(client, hard, "tiny:short", max_tokens=1500, extra_body={"ignore_eos": True})
    assert length.completion == TIERS["short"]["thinking"] + TIERS["short"]["answer"]
