"""The fields that each model family is sent at each of its tiers."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.config.loader import builtin_families, parse
from gateway.config.models import EFFORTS, Family
from gateway.config.settings import Settings
from gateway.openai_api.requests import ClientLimits
from gateway.routing.tiers import Length, TierLadder
from tests.making import chat, plain


def settings(family: str, families: dict[str, Any] | None = None, **model: Any) -> Settings:
    """Settings with one model that has the tiers of its family."""
    models = {"tiny": {"family": family, "replicas": [{"url": "http://a"}]} | model}
    return parse(yaml.safe_dump({"models": models, "families": families or {}}), {})


def ladder(family: str, families: dict[str, Any] | None = None, **model: Any) -> TierLadder:
    made = settings(family, families, **model)
    tiny = made.models["tiny"]
    return TierLadder.of(tiny, made.tiers_of(tiny), made.families[family])


def sent(made: TierLadder, tier: str) -> dict[str, Any]:
    """The fields that a tier adds to a minimal request."""
    client = chat()
    fields = plain(made.apply(client.fields, made.index(tier), made.length(made.index(tier), ClientLimits())))
    return {name: value for name, value in fields.items() if name not in client.fields}


def template(**variables: Any) -> dict[str, Any]:
    return {"chat_template_kwargs": variables}


def budget(tokens: int, max_tokens: int) -> dict[str, Any]:
    return {"thinking_token_budget": tokens} | limit(max_tokens)


def limit(max_tokens: int) -> dict[str, Any]:
    return {"max_completion_tokens": max_tokens}


ENABLED, DISABLED = template(enable_thinking=True), template(enable_thinking=False)
ON, OFF = template(thinking=True), template(thinking=False)
FULL = {"short": budget(1024, 5120), "medium": budget(4096, 8192), "long": budget(16384, 24576)}


def full(off: dict[str, Any], on: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The four tiers of a family whose thinking can be switched off and budgeted."""
    return {"direct": off | limit(4096)} | {tier: on | fields for tier, fields in FULL.items()}


def worded(variable: str, efforts: dict[str, str], **on: Any) -> dict[str, dict[str, Any]]:
    """The tiers of a family that is told an effort by its template, and a budget."""
    lengths = {"short": budget(2048, 6144), "medium": budget(8192, 12288), "long": budget(32768, 40960)}
    return {tier: template(**on, **{variable: effort}) | lengths[tier] for tier, effort in efforts.items()}


LOW_TO_MAX = {"short": "low", "medium": "high", "long": "max"}
SWITCHED_OFF = {"direct": OFF | limit(4096)}
NEVER_OFF = full({"thinking_token_budget": 0}, {})
MISTRAL = {
    "direct": {"reasoning_effort": "none"} | limit(4096),
    "short": {"reasoning_effort": "high"} | FULL["short"],
    "long": {"reasoning_effort": "high"} | FULL["long"],
}

TABLE: dict[str, dict[str, dict[str, Any]]] = {
    "qwen3": full(DISABLED, ENABLED),
    "qwen3.5": full(DISABLED, ENABLED),
    "qwen3.8": {
        "direct": DISABLED | limit(4096),
        "short": template(enable_thinking=True, reasoning_effort="low") | FULL["short"],
        "medium": template(enable_thinking=True, reasoning_effort="medium") | FULL["medium"],
        "long": template(enable_thinking=True, reasoning_effort="medium") | FULL["long"],
    },
    "gpt-oss": {
        "short": {"reasoning_effort": "low"} | limit(5120),
        "medium": {"reasoning_effort": "medium"} | limit(8192),
        "long": {"reasoning_effort": "high"} | limit(24576),
    },
    "deepseek-r1": NEVER_OFF,
    "deepseek-v3": full(OFF, ON),
    "deepseek-v4": {
        "direct": OFF | limit(4096),
        "medium": ON | {"reasoning_effort": "high"} | limit(12288),
        "long": ON | {"reasoning_effort": "max"} | limit(40960),
    },
    "deepseek-v4.1": SWITCHED_OFF | worded("reasoning_effort", LOW_TO_MAX, thinking=True),
    "glm": full(DISABLED, ENABLED),
    "glm-5.2": {"direct": DISABLED | limit(4096)}
    | worded("reasoning_effort", {"medium": "high", "long": "max"}, enable_thinking=True),
    "glm-5.3": worded("reasoning_effort", LOW_TO_MAX),
    "nemotron": full(DISABLED, ENABLED),
    "granite": {"direct": OFF | limit(4096), "long": ON | limit(12288)},
    "granite-4.2": full(DISABLED, ENABLED),
    "magistral": MISTRAL,
    "mistral": MISTRAL,
    "kimi": full(OFF, ON),
    "kimi-k3": SWITCHED_OFF | worded("thinking_effort", LOW_TO_MAX, thinking=True),
    "gemma": {"direct": DISABLED | limit(4096), "long": ENABLED | limit(12288)},
    "minimax": NEVER_OFF,
    "minimax-m3": full(template(thinking_mode="disabled"), template(thinking_mode="enabled")),
    "hunyuan": {"direct": DISABLED | limit(4096), "long": ENABLED | limit(12288)},
    "hy3": {
        "direct": template(reasoning_effort="no_think") | limit(4096),
        "short": template(reasoning_effort="low") | budget(2048, 6144),
        "long": template(reasoning_effort="high") | FULL["long"],
    },
    "hy4": {
        "direct": template(reasoning_effort="no_think") | limit(4096),
        "short": template(reasoning_effort="high") | FULL["short"],
        "long": template(reasoning_effort="high") | FULL["long"],
    },
    "ernie": NEVER_OFF,
    "ernie-vl": full(DISABLED, ENABLED),
    "step": NEVER_OFF,
    "step-3.7": {
        tier: template(reasoning_effort=effort) | FULL[tier]
        for tier, effort in {"short": "low", "medium": "medium", "long": "high"}.items()
    },
    "seed-oss": {
        "direct": template(thinking_budget=0) | limit(4096),
        "short": template(thinking_budget=1024) | limit(5120),
        "medium": template(thinking_budget=4096) | limit(8192),
        "long": template(thinking_budget=16384) | limit(24576),
    },
    "plain": {"direct": {}},
}


def test_table_is_complete() -> None:
    """The table lists every built-in family and no other."""
    assert TABLE.keys() == builtin_families().keys()


@pytest.mark.parametrize(
    ("family", "tier", "fields"),
    [(family, tier, fields) for family, tiers in TABLE.items() for tier, fields in tiers.items()],
)
def test_fields_of_a_tier(family: str, tier: str, fields: dict[str, Any]) -> None:
    """A tier adds exactly these fields to the client's own."""
    assert sent(ladder(family), tier) == fields


@pytest.mark.parametrize("family", TABLE)
def test_tiers_in_order(family: str) -> None:
    """A family's tiers are sorted cheapest first, under the names of the table."""
    assert ladder(family).names == tuple(TABLE[family])


FOUR = ("direct", "direct", "short", "medium", "long", "long", "long")
TWO = ("direct",) * 4 + ("long",) * 3
ALWAYS = ("short", "short", "short", "medium", "long", "long", "long")
DEEP = ("direct", "direct", "short", "short", "medium", "medium", "long")
MISTRAL_TIERS = ("direct", "direct", "short", "short", "long", "long", "long")
HIGHEST: dict[str, tuple[str, ...]] = dict.fromkeys(TABLE, FOUR) | {
    "gpt-oss": ALWAYS,
    "step-3.7": ALWAYS,
    "deepseek-v4": ("direct",) * 4 + ("medium", "medium", "long"),
    "glm-5.2": ("direct",) * 4 + ("medium", "medium", "long"),
    "deepseek-v4.1": DEEP,
    "kimi-k3": DEEP,
    "glm-5.3": ("short",) * 4 + ("medium", "medium", "long"),
    "hy3": MISTRAL_TIERS,
    "hy4": MISTRAL_TIERS,
    "hunyuan": TWO,
    "granite": TWO,
    "gemma": TWO,
    "magistral": MISTRAL_TIERS,
    "mistral": MISTRAL_TIERS,
    "plain": ("direct",) * 7,
}


@pytest.mark.parametrize("family", TABLE)
def test_highest_tier_by_effort(family: str) -> None:
    """Each effort from none to max allows this tier at most, rounded down."""
    made = ladder(family)

    highest = [made.highest(ClientLimits(effort=effort)) for effort in EFFORTS]

    assert tuple(map(made.tier_at, highest)) == HIGHEST[family]


@pytest.mark.parametrize("family", TABLE)
def test_backend_that_refuses_budgets(family: str) -> None:
    """With `thinking_budget: false` no tier sends a thinking budget, not even 0; the token limit stays."""
    made = ladder(family, thinking_budget=False)

    for tier, fields in TABLE[family].items():
        found = sent(made, tier)
        assert "thinking_token_budget" not in found
        assert found.get("max_completion_tokens") == fields.get("max_completion_tokens")


@pytest.mark.parametrize("family", [name for name, tiers in TABLE.items() if "long" in tiers])
def test_budget_is_cut_to_the_length(family: str) -> None:
    """A shortened tier sends the smaller thinking budget if the family takes one."""
    made, whole = ladder(family), TABLE[family]["long"]
    cut = plain(made.apply(chat().fields, made.index("long"), Length(100, 300)))

    assert cut["max_completion_tokens"] == 300
    assert cut.get("thinking_token_budget") == (100 if "thinking_token_budget" in whole else None)


KNOWN = {"chat_template_kwargs", "thinking_token_budget", "reasoning_effort", "max_completion_tokens"}
VARIABLES = {"enable_thinking", "thinking", "thinking_mode", "thinking_budget"}
EFFORT = {"reasoning_effort", "thinking_effort"}
FOREIGN: list[dict[str, Any]] = [
    {"reasoning_effort": "banana"},
    {"reasoning_effort": "medium", "reasoning": {"effort": "banana"}},
    template(reasoning_effort="banana", thinking_effort="banana", thinking_mode="banana"),
    template(enable_thinking=True, thinking=True, reasoning_effort="minimal"),
]


@pytest.mark.parametrize("fields", FOREIGN)
@pytest.mark.parametrize("family", sorted(set(TABLE) - {"plain"}))
def test_no_foreign_word_reaches_a_template(family: str, fields: dict[str, Any]) -> None:
    """Every tier sends known fields only, and no effort but the family's own, whatever the client says."""
    made, own = ladder(family), Family.model_validate(builtin_families()[family])
    request = chat(**fields)
    for index in range(len(made.rungs)):
        length = made.length(index, request.client_limits)
        found = plain(made.apply(request.fields, index, length))
        variables = found.get("chat_template_kwargs", {})
        told = [found.get("reasoning_effort"), *(variables.get(name) for name in EFFORT)]

        assert found.keys() <= KNOWN | {"model", "messages"}
        assert variables.keys() <= VARIABLES | EFFORT
        assert {word for word in told if word} <= {*own.efforts, "none", "no_think"}
        assert "banana" not in str(found)


@pytest.mark.parametrize("family", TABLE)
def test_marks_and_parser(family: str) -> None:
    """A row that sends a budget names vLLM's parser, and marks that differ if it has any."""
    row = Family.model_validate(builtin_families()[family])

    assert row.parser or family == "plain"
    assert row.marks is None or len({mark.strip() for mark in row.marks}) == 2


def test_family_that_cannot_stop_thinking() -> None:
    """If thinking cannot be switched off, a length without reasoning sends the weakest effort."""
    fields = plain(ladder("gpt-oss").apply(chat().fields, 0, Length(0, 50)))

    assert (fields["reasoning_effort"], fields["max_completion_tokens"]) == ("low", 50)


OWN = {
    "no_thinking": {"chat_template_kwargs": {"mode": "fast"}},
    "thinking": {"chat_template_kwargs": {"mode": "slow", "budget": "$budget"}},
    "tiers": {"direct": {"thinking": 0, "answer": 10}, "long": {"thinking": 90, "answer": 10}},
}


def test_family_added() -> None:
    """The configuration can add families to the built-in ones."""
    made = ladder("mine", {"mine": OWN})

    assert sent(made, "direct") == template(mode="fast") | limit(10)
    assert sent(made, "long") == template(mode="slow", budget=90) | limit(100)
    assert builtin_families().keys() < settings("mine", {"mine": OWN}).families.keys()


def test_family_replaced() -> None:
    """An entry of the same name replaces the whole built-in one."""
    assert sent(ladder("qwen3", {"qwen3": OWN}), "long") == template(mode="slow", budget=90) | limit(100)
    assert ladder("qwen3", {"qwen3": OWN}).names == ("direct", "long")
