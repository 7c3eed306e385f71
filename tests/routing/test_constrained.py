"""Tiers of requests with tools or a schema, which get no thinking budget."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.settings import Settings
from gateway.openai_api.requests import ClientLimits
from gateway.routing.constrained import ConstrainedLadder, constrained_ladder
from gateway.routing.tiers import Length, TierLadder
from tests.making import SWITCH, any_limits, chat, families, ladder, plain, tier_values, tokens

TIERS = {
    "direct": {"thinking": 0, "answer": 100},
    "short": {"thinking": 50, "answer": 100},
    "medium": {"thinking": 100, "answer": 100},
    "long": {"thinking": 400, "answer": 100},
}
WORDS = {
    "no_thinking": {"chat_template_kwargs": {"enable_thinking": False}},
    "thinking": {"reasoning_effort": "$effort", "thinking_token_budget": "$budget"},
    "efforts": ["low", "medium", "high"],
}
ALWAYS = {"thinking": {"thinking_token_budget": "$budget"}}
ZERO = ALWAYS | {"no_thinking": {"thinking_token_budget": 0}}
HINT = {
    "no_thinking": {"chat_template_kwargs": {"thinking_budget": 0}},
    "thinking": {"chat_template_kwargs": {"thinking_budget": "$budget"}},
}


def beside(
    tiers: dict[str, Any] = TIERS, family: dict[str, Any] = SWITCH, **model: Any
) -> ConstrainedLadder | None:
    """The ladder for requests with tools, of a model with these tiers."""
    entry = {"family": "f", "replicas": [{"url": "http://a"}], "tiers": tiers} | model
    made = Settings.model_validate({"families": {"f": family}, "models": {"tiny": entry}})
    tiny, known = made.models["tiny"], made.families["f"]
    return constrained_ladder(tiny, TierLadder.of(tiny, made.tiers_of(tiny), known), known)


def constrained(family: dict[str, Any] = SWITCH) -> ConstrainedLadder:
    made = beside(family=family)
    assert made
    return made


def sent(made: TierLadder, tier: str, limits: ClientLimits | None = None, guaranteed: int = 0) -> Any:
    index = made.index(tier)
    fields = plain(made.apply(chat().fields, index, made.length(index, limits or ClientLimits(), guaranteed)))
    return {name: value for name, value in fields.items() if name not in ("model", "messages")}


ON, OFF = {"chat_template_kwargs": {"enable_thinking": True}}, SWITCH["no_thinking"]


@pytest.mark.parametrize(
    ("tier", "fields"),
    [
        ("direct", OFF | {"max_completion_tokens": 100}),
        ("short", OFF | {"max_completion_tokens": 100}),
        ("medium", ON | {"max_completion_tokens": 200}),
        ("long", ON | {"max_completion_tokens": 500}),
    ],
)
def test_tiers_that_differ_in_numbers(tier: str, fields: dict[str, Any]) -> None:
    """A tier thinks without a budget if it thinks at least as much as it answers; else thinking is off."""
    assert sent(constrained(), tier) == fields


@pytest.mark.parametrize("tier", ["short", "medium", "long"])
def test_tiers_that_differ_in_effort(tier: str) -> None:
    """An effort that the model is told paces its thought, so every tier thinks."""
    words = {"short": "low", "medium": "medium", "long": "high"}
    found = sent(constrained(WORDS), tier)

    assert found["reasoning_effort"] == words[tier]
    assert "thinking_token_budget" not in found


@pytest.mark.parametrize("limits", [ClientLimits(max_tokens=300), ClientLimits(max_tokens=499)])
def test_thought_that_would_be_cut(limits: ClientLimits) -> None:
    """If a limit leaves less than the tier wants, thinking is off, and the answer keeps its room."""
    assert sent(constrained(), "long", limits) == OFF | {"max_completion_tokens": 100}
    assert constrained().length(3, ClientLimits(), 0, 300) == Length(0, 100)


def test_guarantee_thinks() -> None:
    """A guaranteed tier thinks, whatever the limits are."""
    assert sent(constrained(), "short", guaranteed=50) == ON | {"max_completion_tokens": 150}
    assert sent(constrained(), "long", ClientLimits(max_tokens=60), 400) == ON | {
        "max_completion_tokens": 460
    }


def test_thinking_that_cannot_be_switched_off() -> None:
    """Such a model thinks at every tier, within the token limit."""
    assert sent(constrained(ALWAYS), "short") == {"max_completion_tokens": 150}


def test_budget_of_zero() -> None:
    """A family that is switched off by a budget of 0 still is, as no tool call can have begun by then."""
    assert sent(constrained(ZERO), "direct") == {"thinking_token_budget": 0, "max_completion_tokens": 100}
    assert sent(constrained(ZERO), "long") == {"max_completion_tokens": 500}


@pytest.mark.parametrize(
    ("family", "model"),
    [
        (SWITCH, {"budget_with_tools": True}),  # the probe has seen that the backend survives it
        (SWITCH, {"thinking_budget": False}),  # none is sent anyway
        ({"thinking": {"reasoning_effort": "$effort"}}, {}),
        (HINT, {}),  # the template tells the model its budget, and nothing is forced
    ],
)
def test_models_that_need_no_other_ladder(family: dict[str, Any], model: dict[str, Any]) -> None:
    """Where no budget is forced upon the backend, or the model allows it, nothing changes."""
    assert beside(TIERS, family, **model) is None


names = st.sampled_from(("direct", "short", "medium", "long", "t-1"))


@settings(max_examples=30)
@given(st.dictionaries(names, tier_values, min_size=1, max_size=5), families, any_limits, tokens)
def test_no_budget_is_sent(
    tiers: dict[str, Any], family: dict[str, Any], limits: ClientLimits, guaranteed: int
) -> None:
    """No tier sends a budget other than 0, none is longer than without tools, and guarantees hold."""
    usual, made = ladder(tiers, family), beside(tiers, family)
    if made is None:
        return
    for index, rung in enumerate(made.rungs):
        length = made.length(index, limits, guaranteed)
        fields = plain(made.apply(chat().fields, index, length))
        longest = usual.length(index, limits, guaranteed)

        assert fields.get("thinking_token_budget", 0) == 0
        assert length.thinking <= longest.thinking
        assert longest.max_tokens is None or (length.max_tokens or 0) <= longest.max_tokens
        if promised := min(guaranteed, rung.thinking):
            assert length.thinking >= promised
